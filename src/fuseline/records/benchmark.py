"""How fast a bundle ran, where, and under which conditions."""

from __future__ import annotations

from fuseline.records.base import OTHER, Record, System


class Latency(Record):
    """Latency and throughput at one batch size; milliseconds per call, examples per second."""

    batch_size: int
    calls: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    examples_per_second: float


class Beside(Record):
    """How fast the system that is not published ran under the same conditions."""

    system: System
    model_bytes: int
    batches: dict[str, Latency]


class Benchmark(Record):
    """`benchmark.json`: how fast the bundle ran, where, and under which conditions."""

    device: str
    """The plain sentence that is shown wherever these numbers are."""
    gpu: str | None
    providers_asked: list[str]
    providers_used: list[str]
    """The provider of each graph node that ran, most nodes first."""
    threads: int
    cpu: str
    cores: int
    platform: str
    onnxruntime: str
    model_bytes: int
    load_ms: float
    peak_memory_bytes: int
    batches: dict[str, Latency]
    """Keyed `batch_1`, `batch_8`, …"""
    beside: Beside | None = None
    """Where there is a student: the other of the two."""

    @property
    def system(self) -> System:
        """Which of the two ran, and is published if the gate passes."""
        return "ensemble" if self.beside is None else OTHER[self.beside.system]
