"""What `dvc metrics` and `dvc plots` show of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuseline.records import Benchmark, Latency, Timed

KEPT = ("p50_ms", "p95_ms", "examples_per_second")
"""`dvc metrics` has a column for each, `fuseline compare` a line."""
DRAWN = ("p50_ms", "p95_ms", "p99_ms")


def headline(benchmark: Benchmark) -> dict[str, Any]:
    """Reduce a benchmark to plain numbers, by batch size and rate: of what is exported, and of what stood beside it."""
    return {"exported": _numbers(benchmark)} | {name: _numbers(one) for name, one in benchmark.others.items()}


def _numbers(timed: Benchmark | Timed) -> dict[str, Any]:
    parts = {**timed.batches, **timed.server} | ({"offline": timed.offline} if timed.offline else {})
    kept = {name: {key: getattr(part, key) for key in KEPT if hasattr(part, key)} for name, part in parts.items()}
    return {"model_bytes": timed.model_bytes, **kept}


def latency(batches: Mapping[str, Latency]) -> list[dict[str, Any]]:
    """List one bar for each batch size and percentile that was measured: call, ms."""
    return [
        {"call": f"batch {batch.batch_size}, {key.removesuffix('_ms')}", "ms": getattr(batch, key)}
        for batch in sorted(batches.values(), key=lambda batch: batch.batch_size)
        for key in DRAWN
        if getattr(batch, key) is not None
    ]
