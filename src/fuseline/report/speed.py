"""What the page shows of the benchmark, besides its chart."""

from __future__ import annotations

from collections.abc import Mapping

from fuseline.records import NOT_MEASURED, Benchmark, Contention, Interval, Ratio, Rival
from fuseline.report import charts, numbers
from fuseline.report.tables import Table


def latency(benchmark: Benchmark) -> Table:
    """List latency and throughput per batch size."""
    rows = [
        [
            str(b.batch_size),
            *_percentiles((b.p50_ms, b.p95_ms, b.p99_ms), b.intervals),
            numbers.milliseconds(b.mean_ms),
            _time(b.graph_p50_ms),
            _time(b.copy_p50_ms),
            _time(b.cpu_p50_ms),
            numbers.rate(b.examples_per_second),
            f"{b.calls:,}",
        ]
        for b in charts.by_size(benchmark)
    ]
    own = ("Mean", "Graph alone, p50", "Copies, p50", "CPU time, p50", "Throughput", "Calls")
    return Table(
        f"Latency per call on this device: {benchmark.device}",
        (
            ("Batch size", "number"),
            *((name, "number") for name in _percentile_names(benchmark)),
            *((name, "number") for name in own),
        ),
        rows,
    )


def _percentile_names(benchmark: Benchmark) -> list[str]:
    span = f"{100 * benchmark.confidence:g} % interval"
    return [name for percentile in ("p50", "p95", "p99") for name in (percentile, span)]


def _percentiles(found: tuple[float, float, float | None], intervals: Mapping[str, Interval]) -> list[str]:
    cells = []
    for name, value in zip(("p50", "p95", "p99"), found, strict=True):
        cells += [NOT_MEASURED if value is None else numbers.milliseconds(value), _bounds(intervals.get(name))]
    return cells


def _bounds(interval: Interval | None, unit: str = " ms") -> str:
    """Show what bounds there are; of few calls one may be beyond them all."""
    if interval is None or interval.low is interval.high is None:
        return numbers.DASH
    low, high = ("…" if bound is None else f"{bound:,.3g}" for bound in (interval.low, interval.high))
    return f"[{low},\N{NO-BREAK SPACE}{high}]{unit}"


def _time(value: float | None) -> str:
    return numbers.DASH if value is None else numbers.milliseconds(value)


def parts(benchmark: Benchmark) -> list[Table]:
    """List the tables of what was measured besides: rows that arrive, all rows at once, other sides, ceilings."""
    tables = (_arriving(benchmark), _at_once(benchmark), _sides(benchmark), _ceilings(benchmark))
    return [table for table in tables if table.rows]


def _arriving(benchmark: Benchmark) -> Table:
    rows = [
        [
            f"{load.rate:g}",
            *_percentiles((load.p50_ms, load.p95_ms, load.p99_ms), load.intervals),
            f"{load.mean_batch:.2f} of {load.largest_batch}",
            numbers.rate(load.examples_per_second),
            f"{load.rows:,}",
        ]
        for load in sorted(benchmark.server.values(), key=lambda load: load.rate)
    ]
    return Table(
        "Rows that arrive by chance: from when a row was to arrive until it was answered",
        (
            ("Rows per second", "number"),
            *((name, "number") for name in _percentile_names(benchmark)),
            ("Answered together", "number"),
            ("Throughput", "number"),
            ("Rows", "number"),
        ),
        rows,
    )


def _at_once(benchmark: Benchmark) -> Table:
    sides = {"this bundle": benchmark.offline} | {name: one.offline for name, one in benchmark.others.items()}
    rows = [
        [name, f"{one.rows:,}", numbers.rate(one.examples_per_second), _bounds(one.interval, "")]
        for name, one in sides.items()
        if one is not None
    ]
    span = f"{100 * benchmark.confidence:g} % interval"
    return Table(
        "All rows at once",
        (("Side", "text"), ("Rows", "number"), ("Throughput, median", "number"), (span, "number")),
        rows,
    )


def _sides(benchmark: Benchmark) -> Table:
    batches = charts.by_size(benchmark)
    rows = [
        [
            name, numbers.DASH if one.model_bytes is None else numbers.size(one.model_bytes),
            *(cell for b in batches for cell in _side(one, f"batch_{b.batch_size}")),
        ]
        for name, one in benchmark.others.items()
    ]  # fmt: skip
    heads = ("p50, batch {0}", "Times as fast, batch {0}", "Graph alone, times as fast, batch {0}")
    return Table(
        "What took turns with this bundle, on the same rows; times as fast as it, medians of pairs",
        (
            ("Side", "text"),
            ("Model size", "number"),
            *((head.format(b.batch_size), "number") for b in batches for head in heads),
        ),
        rows,
    )


def _side(timed: Rival, batch: str) -> list[str]:
    ratios = [_ratio(of.get(batch)) for of in (timed.faster, timed.graph_faster)]
    return [numbers.milliseconds(timed.batches[batch].p50_ms), *ratios]


def _ratio(ratio: Ratio | None) -> str:
    return numbers.DASH if ratio is None else f"{ratio.value:.2f} {_bounds(ratio.interval, '')}"


def _ceilings(benchmark: Benchmark) -> Table:
    rows = [
        [
            str(one.batch_size),
            " + ".join(f"{count / 1e9:,.3g} {dtype}" for dtype, count in one.flops.items()),
            numbers.size(round(one.moved_bytes)),
            numbers.milliseconds(one.floor_ms),
            numbers.milliseconds(one.graph_ms),
            numbers.share(one.share, 1),
            numbers.share(one.flops_share, 1),
            ", ".join(f"{kind} {numbers.share(part, 1)}" for kind, part in list(one.slowest.items())[:3]),
        ]
        for one in sorted(benchmark.roofline.values(), key=lambda one: one.batch_size)
    ]
    ceilings = ", ".join(f"{dtype} {of / 1e9:,.0f} GFLOP/s" for dtype, of in benchmark.ceilings.items() if of and
                         not dtype.startswith("copy_"))  # fmt: skip
    return Table(
        f"How near the graph comes to what this machine reaches ({ceilings})",
        (
            ("Batch size", "number"), ("GFLOP", "number"), ("Bytes moved", "number"), ("Floor", "number"),
            ("Graph alone", "number"), ("Reached", "number"), ("By arithmetic alone", "number"),
            ("Where its time goes", "prose"),
        ),
        rows,
    )  # fmt: skip


def tell_validity(benchmark: Benchmark) -> str:
    """Say whether others took so much of the processor that the numbers say more of them."""
    if benchmark.contention is None:
        return "Whether the processor was contended for meanwhile was not looked at."
    if not benchmark.valid:
        return f"Not valid: {benchmark.invalid_because}. Such numbers are too high, and say little of the bundle."
    return f"Valid: {_tell(benchmark.contention)}."


def _tell(contention: Contention) -> str:
    told = {"some task waited for a processor": contention.cpu_pressure, "the process did": contention.queue_delay}
    known = [f"{what} in {numbers.share(part, 1)} of the time" for what, part in told.items() if part is not None]
    return ", ".join(known) or "the system does not tell of contention"


def conditions(benchmark: Benchmark) -> Mapping[str, str]:
    """List what the numbers depend on."""
    contention, clocks = benchmark.contention, benchmark.clocks_mhz
    return {
        "Device": benchmark.device,
        "Providers asked for": ", ".join(benchmark.providers_asked),
        "Providers used": ", ".join(benchmark.providers_used) or "none reported",
        **{f"Why not {name}": why for name, why in benchmark.missing.items()},
        "Nodes": ", ".join(f"{count:,} on {name}" for name, count in benchmark.nodes.items()) or "not counted",
        **({"Nodes that left the GPU": _kinds(benchmark.fallen)} if benchmark.fallen else {}),
        "Threads": f"{benchmark.threads} inside one operator",
        "CPU": f"{benchmark.cpu}, {benchmark.cores} cores",
        "Clock": ", ".join(f"{name} {mhz:,.0f} MHz" for name, mhz in clocks.items()) or "not told by the system",
        "GPU": benchmark.gpu or "none",
        "Contention": "not looked at" if contention is None else _tell(contention),
        "Load time": numbers.milliseconds(benchmark.load_ms),
        "First answer": _time(benchmark.first_answer_ms),
        "Model size": numbers.size(benchmark.model_bytes),
        "Memory of the bundle": numbers.DASH
        if benchmark.memory_bytes is None
        else numbers.size(benchmark.memory_bytes),
        "Peak memory": numbers.size(benchmark.peak_memory_bytes),
        "onnxruntime": benchmark.onnxruntime,
        "Platform": benchmark.platform,
    }


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
