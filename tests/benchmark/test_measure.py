"""Timings: percentiles by hand, and the conditions that go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseline.benchmark.measure import measure, summarize
from fuseline.config import Benchmark as Conditions
from fuseline.records import Benchmark
from fuseline.runtime.predictor import Row
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


@pytest.fixture(scope="module")
def measured(bundle: Path, rows: list[Row]) -> Benchmark:
    conditions = Conditions(
        providers=["CUDAExecutionProvider", "CPUExecutionProvider"], batch_sizes=[1, 3], threads=1, warmup=1, calls=5
    )
    return measure(bundle, rows, conditions)


def test_each_batch_size_is_timed_without_the_warmup(measured: Benchmark) -> None:
    assert {name: (one.batch_size, one.calls) for name, one in measured.batches.items()} == {
        "batch_1": (1, 5), "batch_3": (3, 5),
    }  # fmt: skip
    for latency in measured.batches.values():
        assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms


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
