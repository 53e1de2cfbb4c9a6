"""What `dvc metrics` and `dvc plots` show of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuseline.records import Benchmark, Latency, Timed, write_json

KEPT = ("p50_ms", "p95_ms", "examples_per_second")
"""`dvc metrics` has a column for each, `fuseline compare` a line."""
DRAWN = ("p50_ms", "p95_ms", "p99_ms")


def write(benchmark: Benchmark, folder: Path) -> None:
    """Write the record, and what DVC shows of it."""
    benchmark.write(folder / "benchmark.json")
    write_json(folder / "metrics.json", headline(benchmark))
    latencies = {benchmark.system: benchmark.batches} | {name: one.batches for name, one in benchmark.others.items()}
    for name, batches in latencies.items():
        write_json(folder / "plots" / "latency" / f"{name}.json", latency(batches))


def headline(benchmark: Benchmark) -> dict[str, Any]:
    """Reduce a benchmark to plain numbers, by batch size and rate: of what is exported, and of what stood beside it."""
    return {"exported": _numbers(benchmark)} | {name: _numbers(one) for name, one in benchmark.others.items()}


def _numbers(timed: Timed) -> dict[str, Any]:
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
