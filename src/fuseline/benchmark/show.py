"""A benchmark as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fuseline.records import NOT_MEASURED, Benchmark, Interval, Latency, Load, Ratio, Rival, Timed

OURS = "this bundle"
TORCH = "torch "
"""Names of ways to run the model in torch begin so."""
Sides = Mapping[str, Timed]


def show(benchmark: Benchmark, console: Console) -> None:
    """Print what was measured, and first of all on what and whether it counts."""
    console.print(f"Measured on: {benchmark.device}; {benchmark.cpu}, {benchmark.threads} threads")
    for provider, why in benchmark.missing.items():
        console.print(f"{provider}: not measured, {why}")
    if benchmark.fallen:
        console.print("left the GPU: " + ", ".join(f"{count} {kind}" for kind, count in benchmark.fallen.items()))
    console.print(f"Not valid: {benchmark.invalid_because}" if not benchmark.valid else "Valid: nobody was in the way")
    sides: Sides = {OURS: benchmark, **benchmark.others}
    for name, rival in benchmark.others.items():
        if rival.device != benchmark.device:
            console.print(f"{name} was measured on: {rival.device}")
    for name in benchmark.batches:
        console.print(_stream(name, sides))
        if best := find_best_torch(benchmark, name):
            console.print(f"best of torch: {best}")
    for rate in benchmark.server:
        console.print(_arriving(rate, sides))
    console.print(_rest(sides))
    streams = [part.p99_ms for one in sides.values() for part in one.batches.values()]
    if None in streams + [part.p99_ms for one in sides.values() for part in one.server.values()]:
        console.print(f"* {NOT_MEASURED}")
    for roofline in benchmark.roofline.values():
        console.print(
            f"Batch {roofline.batch_size}: {sum(roofline.flops.values()) / 1e9:.2f} GFLOP, "
            f"{roofline.moved_bytes / 1e6:.1f} MB moved; {roofline.share:.0%} of what this machine reaches"
        )


def _stream(name: str, sides: Sides) -> Table:
    heads = ["p50 ms", "p95 ms", "p99 ms", "graph ms", "examples/s", "times as fast", "graph alone"]
    copied = any(timed.batches[name].copy_p50_ms is not None for timed in sides.values())
    table = _table(f"Batch {name.removeprefix('batch_')}, call after call", heads + ["copies ms"] * copied)
    for side, timed in sides.items():
        found = timed.batches[name]
        ratios = [_ratio(of.get(name)) for of in (timed.faster, timed.graph_faster)] if isinstance(timed, Rival) else []
        table.add_row(side, *_percentiles(found), _ms(found.graph_p50_ms), f"{found.examples_per_second:.1f}",
                      *(ratios or ["", ""]), *([_ms(found.copy_p50_ms)] * copied))  # fmt: skip
    return table


def find_best_torch(benchmark: Benchmark, batch: str) -> str | None:
    """Return which way to run the model in torch was the fastest at a batch size, None where torch was not asked."""
    times = {
        name: one.batches[batch].graph_p50_ms or 0.0 for name, one in benchmark.others.items() if name.startswith(TORCH)
    }
    return min(times, key=lambda name: times[name]) if times else None


def _arriving(name: str, sides: Sides) -> Table:
    heads = ("p50 ms", "p95 ms", "p99 ms", "rows together", "examples/s")
    table = _table(f"{name.removeprefix('rate_')} rows a second, by chance", heads)
    for side, timed in sides.items():
        load = timed.server[name]
        table.add_row(side, *_percentiles(load), f"{load.mean_batch:.2f}", f"{load.examples_per_second:.1f}")
    return table


def _rest(sides: Sides) -> Table:
    table = _table(
        "All rows at once, and what it takes", ("examples/s", "model MB", "load ms", "first answer ms", "MB")
    )
    for side, timed in sides.items():
        rate = "" if timed.offline is None else f"{timed.offline.examples_per_second:.1f}"
        megabytes = "" if timed.memory_bytes is None else f"{timed.memory_bytes / 1e6:.0f}"
        size = "" if timed.model_bytes is None else f"{timed.model_bytes / 1e6:.1f}"
        table.add_row(side, rate, size, _ms(timed.load_ms), _ms(timed.first_answer_ms),
                      megabytes)  # fmt: skip
    return table


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table("", title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _percentiles(found: Latency | Load) -> list[str]:
    return [
        f"{found.p50_ms:.2f} {_bounds(found.intervals.get('p50'))}",
        f"{found.p95_ms:.2f}",
        _ms(found.p99_ms) or "*",
    ]


def _bounds(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = ("…" if bound is None else f"{bound:.2f}" for bound in (interval.low, interval.high))
    return f"({low}–{high})"


def _ratio(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f} {_bounds(ratio.interval)}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
