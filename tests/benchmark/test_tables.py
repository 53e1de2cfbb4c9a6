"""What `dvc metrics` and `dvc plots` show of a benchmark is what was measured."""

from fuseline.benchmark.percentiles import summarize
from fuseline.benchmark.tables import latency

BATCHES = {f"batch_{size}": summarize([float(size)] * 299, size) for size in (8, 1)}


def test_each_batch_size_and_percentile_has_a_bar_the_smallest_batch_first() -> None:
    bars = latency(BATCHES)
    assert [bar["call"] for bar in bars] == [f"batch {size}, p{part}" for size in (1, 8) for part in (50, 95, 99)]
    assert [bar["ms"] for bar in bars] == [1.0] * 3 + [8.0] * 3


def test_what_was_not_measured_has_no_bar() -> None:
    bars = latency({"batch_1": summarize([1.0] * 298, 1)})
    assert [bar["call"] for bar in bars] == ["batch 1, p50", "batch 1, p95"]
