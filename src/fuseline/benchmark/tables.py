"""What `dvc metrics` and `dvc plots` show of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuseline.records import Benchmark, Latency

KEPT = ("p50_ms", "p95_ms", "examples_per_second")
"""`dvc metrics` has a column for each, `fuseline compare` a line."""
DRAWN = ("p50_ms", "p95_ms", "p99_ms")


def headline(benchmark: Benchmark) -> dict[str, Any]:
    """Reduce a benchmark to plain numbers of what is exported, by batch size."""
    batches = {name: {key: getattr(latency, key) for key in KEPT} for name, latency in benchmark.batches.items()}
    return {"exported": {"model_bytes": benchmark.model_bytes, **batches}}


def latency(batches: Mapping[str, Latency]) -> list[dict[str, Any]]:
    """List one bar for each batch size and percentile: call, ms."""
    return [
        {"call": f"batch {batch.batch_size}, {key.removesuffix('_ms')}", "ms": getattr(batch, key)}
        for batch in sorted(batches.values(), key=lambda batch: batch.batch_size)
        for key in DRAWN
    ]
