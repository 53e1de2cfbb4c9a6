"""Time the bundle on real rows."""

from __future__ import annotations

from itertools import islice

from fuseline.benchmark import tables
from fuseline.benchmark.measure import measure
from fuseline.config import Params
from fuseline.inputs.image import COUNTS
from fuseline.progress import say
from fuseline.records import OTHER, Beside, write_json
from fuseline.runtime.bundle import read_bundle, task_of
from fuseline.runtime.rows import read_parquet
from fuseline.stages import entry

ROWS = 256
"""Rows that the calls go round in: enough to vary in length and size."""


def main(params: Params) -> None:
    """build/export, build/prepare → build/benchmark: benchmark and metrics .json, plots/."""
    bundle = read_bundle(entry.EXPORT / "bundle")
    wanted, several = task_of(bundle).wanted(bundle.modalities), COUNTS.name in bundle.inputs
    rows = list(islice(read_parquet(entry.PREPARE / "test", bundle.modalities, wanted, several), ROWS))
    benchmark = measure(entry.EXPORT / "bundle", rows, params.benchmark)
    if (entry.EXPORT / "beside").is_dir():
        other, system = measure(entry.EXPORT / "beside", rows, params.benchmark), OTHER[params.export.system]
        beside = Beside(system=system, model_bytes=other.model_bytes, batches=other.batches)
        benchmark = benchmark.model_copy(update={"beside": beside})
    folder = entry.fresh(entry.BENCHMARK)
    benchmark.write(folder / "benchmark.json")
    write_json(folder / "metrics.json", tables.headline(benchmark))
    latencies = {benchmark.system: benchmark.batches}
    if benchmark.beside is not None:
        latencies[benchmark.beside.system] = benchmark.beside.batches
    for name, batches in latencies.items():
        write_json(folder / "plots" / "latency" / f"{name}.json", tables.latency(batches))
    for latency in benchmark.batches.values():
        say(
            f"benchmark ({benchmark.device}): batch {latency.batch_size}, p50 {latency.p50_ms:.1f} ms, "
            f"p99 {latency.p99_ms:.1f} ms, {latency.examples_per_second:.0f} examples/s"
        )


if __name__ == "__main__":
    entry.run(main)
