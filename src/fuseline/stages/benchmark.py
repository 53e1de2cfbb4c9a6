"""Time the bundle on real rows."""

from __future__ import annotations

import pyarrow.parquet as pq

from fuseline.benchmark.measure import measure
from fuseline.config import Params
from fuseline.progress import say
from fuseline.runtime.predictor import Row
from fuseline.stages import entry


def main(params: Params) -> None:
    """build/export/bundle, build/prepare → build/benchmark: benchmark.json."""
    table = pq.read_table(entry.PREPARE / "test.parquet", columns=["text", "image"]).slice(0, 256)
    rows = [Row(row["text"], row["image"] and row["image"]["bytes"]) for row in table.to_pylist()]
    benchmark = measure(entry.EXPORT / "bundle", rows, params.benchmark)
    benchmark.write(entry.fresh(entry.BENCHMARK) / "benchmark.json")
    for latency in benchmark.batches.values():
        say(f"benchmark ({benchmark.device}): batch {latency.batch_size}, p50 {latency.p50_ms:.1f} ms, "
            f"p99 {latency.p99_ms:.1f} ms, {latency.examples_per_second:.0f} examples/s")


if __name__ == "__main__":
    entry.run(main)
