"""How fast a bundle ran, where, and under which conditions."""

from __future__ import annotations

import math

from fuseline.records.base import OTHER, Record, System

P99_CALLS = math.ceil(math.log(0.05) / math.log(0.99))
"""299: from fewer, the probability that not one call lies beyond the 99th percentile is above 0.05."""
NOT_MEASURED = f"not measured: needs {P99_CALLS} calls"


class Interval(Record):
    """Bounds of a percentile or ratio; None where too few calls were made to have one on that side."""

    low: float | None
    high: float | None


class Ratio(Record):
    """Median of paired ratios."""

    value: float
    interval: Interval


class Latency(Record):
    """Latency and throughput at one batch size, call after call; milliseconds per call, examples per second."""

    batch_size: int
    calls: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    """None from fewer than P99_CALLS."""
    examples_per_second: float
    intervals: dict[str, Interval] = {}
    """By percentile, p50 to p99; no distribution is assumed."""
    graph_p50_ms: float | None = None
    """Of the graph alone, without decoding, tokenizing and copying."""
    copy_p50_ms: float | None = None
    """Of copying inputs and outputs to and from the device; None where they are not bound to one."""
    cpu_p50_ms: float | None = None
    """Time that all threads of the process had a CPU for."""


class Offline(Record):
    """Throughput where all rows are there at once."""

    rows: int
    calls: int
    examples_per_second: float
    """Median of the calls."""
    interval: Interval


class Load(Record):
    """Latency at a given rate of rows, which arrive by chance; from when a row was to arrive until it was answered."""

    rate: float
    """Rows that were to arrive in a second."""
    rows: int
    largest_batch: int
    """How many waiting rows were answered together, at most."""
    mean_batch: float
    examples_per_second: float
    """Rows that were answered in a second; below the rate where the server could not keep up."""
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    intervals: dict[str, Interval]


class Roofline(Record):
    """How near the graph comes to what the machine can do: counted work beside measured ceilings."""

    batch_size: int
    flops: dict[str, float]
    """Of one call, by data type: those of matrix products, convolutions and attention."""
    moved_bytes: float
    """What all nodes read and write."""
    floor_ms: float
    """What the call would take if each node reached its ceiling."""
    graph_ms: float
    share: float
    """The floor's part of the time that it took."""
    flops_share: float
    """Part of the time that the arithmetic alone would take at its ceiling."""
    uncounted: dict[str, int] = {}
    """Nodes that may hold arithmetic that is not counted, by kind: the share is too low by it."""
    slowest: dict[str, float] = {}
    """By kind of node, the part of the profiled time."""


class Timed(Record):
    """One side of a benchmark: what ran it, and how fast."""

    device: str
    """The plain sentence that is shown wherever these numbers are."""
    gpu: str | None
    """None unless most of it ran on one."""
    providers_used: list[str]
    """The provider of each graph node that ran, most nodes first; of a peer that is no bundle none, as the next."""
    nodes: dict[str, int] = {}
    """Graph nodes by the provider that ran them."""
    fallen: dict[str, int] = {}
    """Kinds of nodes that ran on the CPU though a GPU ran others."""
    missing: dict[str, str] = {}
    """Providers that were asked for and ran nothing, each with the reason."""
    model_bytes: int | None
    """None of a peer that is no bundle, as the next."""
    load_ms: float | None
    first_answer_ms: float | None = None
    """From an open graph to the first answer."""
    memory_bytes: int | None = None
    """By how much the process grew until the first answer."""
    batches: dict[str, Latency]
    """Keyed `batch_1`, `batch_8`, …"""
    offline: Offline | None = None
    server: dict[str, Load] = {}
    """Keyed `rate_20`, `rate_0_5`, …"""


class Rival(Timed):
    """A side that took turns with the bundle that the benchmark is of."""

    faster: dict[str, Ratio] = {}
    """By batch size: how many times as fast as that bundle."""
    graph_faster: dict[str, Ratio] = {}
    """The same, of the graphs alone; left out where copies to a GPU are timed apart on one side only."""


class Beside(Record):
    """How fast the system that is not published ran under the same conditions."""

    system: System
    model_bytes: int
    batches: dict[str, Latency]


class Contention(Record):
    """Who else wanted the processor meanwhile; None where the system does not tell."""

    seconds: float
    cpu_seconds: float
    """Of all threads of the process."""
    cpu_pressure: float | None
    """Part of the time in which some task of the machine waited for a processor."""
    queue_delay: float | None
    """Of the time in which threads of this process could have run, the part in which they waited for a processor."""


class Benchmark(Timed):
    """`benchmark.json`: how fast the bundle ran, where, and under which conditions."""

    model_bytes: int
    load_ms: float
    providers_asked: list[str]
    rows: int = 0
    """How many different rows the calls went round in."""
    threads: int
    cpu: str
    cores: int
    platform: str
    onnxruntime: str
    versions: dict[str, str] = {}
    clocks_mhz: dict[str, float] = {}
    """Of the processor, and where there is one of the GPU, as far as the system tells: now, least and most."""
    peak_memory_bytes: int
    """Of the whole process, whatever else it held."""
    cuda: dict[str, bool] = {}
    """How the GPU was used, as `benchmark.cuda` of params says; empty where none was."""
    confidence: float = 0.95
    """Of all intervals."""
    roofline: dict[str, Roofline] = {}
    """Keyed as batches."""
    ceilings: dict[str, float] = {}
    """What the machine reached in this run: FLOP per second by data type, and bytes per second of a copy."""
    others: dict[str, Rival] = {}
    """What took turns with it: variants of the bundle, and peers."""
    beside: Beside | None = None
    """Where there is a student: the other of the two."""
    contention: Contention | None = None
    valid: bool = True
    """False where others took so much of the processor that the numbers say more of them."""
    invalid_because: str = ""

    @property
    def system(self) -> System:
        """Which of the two ran, and is published if the gate passes."""
        return "ensemble" if self.beside is None else OTHER[self.beside.system]
