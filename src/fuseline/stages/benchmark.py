"""Time the bundle on real rows, and beside it what else was exported."""

from __future__ import annotations

from pathlib import Path

from fuseline.benchmark import tables
from fuseline.benchmark.measure import measure
from fuseline.config import Params
from fuseline.progress import say
from fuseline.records import NOT_MEASURED, OTHER, Benchmark, Beside
from fuseline.runtime.bundle import CARD, read_card
from fuseline.runtime.rows import Prepared
from fuseline.stages import entry


def main(params: Params) -> None:
    """build/export, build/prepare → build/benchmark: benchmark and metrics .json, plots/."""
    rows = Prepared.of(entry.PREPARE / "test", read_card(entry.EXPORT / "bundle" / CARD))
    other = OTHER[params.export.system]
    benchmark = measure(entry.EXPORT / "bundle", rows, params.benchmark, find_others(entry.EXPORT, other))
    if other in benchmark.others:
        timed = benchmark.others[other]
        assert timed.model_bytes is not None
        beside = Beside(system=other, model_bytes=timed.model_bytes, batches=timed.batches)
        benchmark = benchmark.model_copy(update={"beside": beside})
    tables.write(benchmark, entry.fresh(entry.BENCHMARK))
    tell(benchmark)


def find_others(export: Path, other: str) -> dict[str, Path]:
    """Return the bundles that were exported beside the one to publish: variants, and the other system, by name."""
    variants = sorted(path.parent for path in export.glob(f"variants/*/{CARD}"))
    beside = export / "beside"
    return {path.name: path for path in variants} | ({other: beside} if beside.is_dir() else {})


def tell(benchmark: Benchmark) -> None:
    """Say the numbers of the bundle, and whether they count."""
    for latency in benchmark.batches.values():
        p99 = NOT_MEASURED if latency.p99_ms is None else f"{latency.p99_ms:.1f} ms"
        say(
            f"benchmark ({benchmark.device}): batch {latency.batch_size}, p50 {latency.p50_ms:.1f} ms, p99 {p99}, "
            f"{latency.examples_per_second:.0f} examples/s"
        )
    if not benchmark.valid:
        say(f"benchmark: not valid, for {benchmark.invalid_because}")


if __name__ == "__main__":
    entry.run(main)
