"""Timings: percentiles by hand, and the conditions that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuseline.benchmark.measure import measure, summarize
from fuseline.config import Benchmark as Conditions
from fuseline.errors import BundleError
from fuseline.records import Benchmark
from fuseline.runtime.predictor import Answer, Predictor, Row
from fuseline.runtime.session import gpu_name


def test_percentiles_are_interpolated_and_throughput_counts_examples() -> None:
    latency = summarize([float(ms) for ms in range(1, 102)], batch_size=4)  # 1 to 101 ms
    assert (latency.calls, latency.batch_size) == (101, 4)
    assert (latency.mean_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms) == (51.0, 51.0, 96.0, 100.0)
    assert latency.examples_per_second == pytest.approx(4 / 0.051)


def test_one_call_is_its_own_percentile() -> None:
    latency = summarize([8.0], batch_size=2)
    assert latency.p50_ms == latency.p99_ms == latency.mean_ms == 8.0
    assert latency.examples_per_second == 250.0


CONDITIONS = Conditions(
    providers=["CUDAExecutionProvider", "CPUExecutionProvider"], batch_sizes=[1, 3], threads=1, warmup=1, calls=5
)


@pytest.fixture(scope="module")
def measured(bundle: Path, rows: list[Row]) -> Benchmark:
    return measure(bundle, rows, CONDITIONS)


def test_each_batch_size_is_timed_without_the_warmup(measured: Benchmark) -> None:
    assert {name: (one.batch_size, one.calls) for name, one in measured.batches.items()} == {
        "batch_1": (1, 5), "batch_3": (3, 5),
    }  # fmt: skip
    for latency in measured.batches.values():
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms


class Watched(Predictor):
    """Notes what it is asked; its first call takes a minute, each other one a second."""

    opened: list[Watched]

    def __init__(self, folder: Path, providers: list[str], threads: int) -> None:
        super().__init__(folder, providers, threads)
        self.calls: list[int] = []
        self.now_s = 0.0
        self.opened.append(self)

    def answer(self, rows: Iterable[Row], batch_size: int) -> Iterator[Answer]:  # type: ignore[override]
        rows = list(rows)
        self.calls.append(len(rows))
        self.now_s += 1 if len(self.calls) > 1 else 60
        assert batch_size == len(rows)
        return super().answer(rows, batch_size)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Let `measure` open watched predictors, by a clock that only their calls move; give those it opened."""
    found: list[Watched] = []
    clock = SimpleNamespace(perf_counter=lambda: found[0].now_s if found else 0.0)
    monkeypatch.setattr(Watched, "opened", found, raising=False)
    monkeypatch.setattr("fuseline.benchmark.measure.Predictor", Watched)
    monkeypatch.setattr("fuseline.benchmark.measure.time", clock)
    return found


def test_the_warmup_is_run_and_not_counted(opened: list[Watched], bundle: Path, rows: list[Row]) -> None:
    batches = measure(bundle, rows, CONDITIONS).batches
    assert [one.calls for one in opened] == [[1] * 6 + [3] * 6]
    assert batches["batch_1"].p99_ms == 1000


def test_the_session_that_is_timed_has_the_threads_asked_for(
    opened: list[Watched], bundle: Path, rows: list[Row]
) -> None:
    measure(bundle, rows, CONDITIONS.model_copy(update={"threads": 3}))
    assert [one.session.get_session_options().intra_op_num_threads for one in opened] == [3]


def test_the_session_that_is_timed_has_the_providers_asked_for(bundle: Path, rows: list[Row]) -> None:
    with pytest.raises(BundleError, match="none of NoSuchExecutionProvider can work here"):
        measure(bundle, rows, CONDITIONS.model_copy(update={"providers": ["NoSuchExecutionProvider"]}))


def test_the_conditions_stand_beside_the_numbers(measured: Benchmark, bundle: Path) -> None:
    graph = sum((bundle / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    assert measured.model_bytes == graph
    assert measured.threads == 1
    assert measured.providers_asked == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert measured.load_ms > 0
    assert measured.peak_memory_bytes > graph
    assert measured.cpu
    assert measured.cores >= 1


@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU")
def test_without_a_gpu_the_record_says_so_in_plain_words(measured: Benchmark) -> None:
    assert measured.device == "CPU, no GPU found"
    assert measured.gpu is None
    assert measured.providers_used == ["CPUExecutionProvider"]
