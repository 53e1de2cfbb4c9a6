"""Inline SVG charts. Colours come from the page's CSS classes, so that dark mode and print work.

Horizontal charts place things in percent and have no viewBox: text keeps its size on any screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from fuseline.records import NOT_MEASURED, Benchmark, Calibration, Estimate, Latency
from fuseline.report import numbers, svg

History = Sequence[Mapping[str, float]]

LABEL_COLUMNS = 24
"""What fits beside a value and its interval on a phone."""


@dataclass(frozen=True)
class Dot:
    """One row of a forest plot; `before` is drawn hollow beneath `now`."""

    label: str
    now: Estimate
    before: Estimate | None = None


def forest(groups: Mapping[str, Sequence[Dot]], reference: float, title: str) -> Markup:
    """Draw estimates with their intervals in named groups, and a dashed line at `reference`."""
    dots = [dot for rows in groups.values() for dot in rows]
    estimates = [estimate for dot in dots for estimate in (dot.now, dot.before) if estimate]
    ends = [end for e in estimates for end in (e.low, e.value, e.high) if end is not None]
    marks = svg.ticks(min(ends), max(ends))
    x = svg.scale((marks[0], marks[-1]), (3, 97))
    bottom = 27 * len(groups) + sum(_height(dot) for dot in dots) + 4
    desc = "; ".join(f"{dot.label} {numbers.metric(dot.now.value)} {numbers.interval(dot.now)}" for dot in dots)
    root = svg.canvas(title, desc, css="chart forest", width="100%", height=bottom + 20)
    _vertical_grid(root, marks, x, bottom)
    top = 0
    for name, rows in groups.items():
        svg.add(root, "text", name, css="group", x=0, y=top + 18)
        top += 27
        for dot in rows:
            _draw_reference(root, f"{x(reference):.2f}%", top + 18, top + _height(dot) - 4)
            _draw_dot(root, dot, x, top)
            top += _height(dot)
    return svg.markup(root)


def _height(dot: Dot) -> int:
    return 48 if dot.before else 38


def _vertical_grid(root: ET.Element, marks: Sequence[float], x: svg.Scale, bottom: int) -> None:
    for mark in marks:
        at = f"{x(mark):.2f}%"
        svg.add(root, "line", css="grid", x1=at, x2=at, y1=0, y2=bottom)
        svg.add(root, "text", f"{mark:g}".replace("-", "−"), css="tick", x=at, y=bottom + 15, text_anchor="middle")


def _draw_reference(root: ET.Element, at: str, top: int, bottom: int) -> None:
    svg.add(root, "line", css="reference", x1=at, x2=at, y1=top, y2=bottom)


def _draw_dot(root: ET.Element, dot: Dot, x: svg.Scale, top: int) -> None:
    label = svg.add(root, "text", svg.shorten(dot.label, LABEL_COLUMNS), css="label", x=0, y=top + 14)
    svg.add(label, "title", dot.label)
    value = f"{numbers.metric(dot.now.value)} {numbers.interval(dot.now)}"
    svg.add(root, "text", value, css="value", x="100%", y=top + 14, text_anchor="end")
    _draw_estimate(root, dot.now, x, top + 25, "now")
    if dot.before:
        _draw_estimate(root, dot.before, x, top + 36, "before")


def _draw_estimate(root: ET.Element, estimate: Estimate, x: svg.Scale, y: int, css: str) -> None:
    group = svg.add(root, "g", css=css)
    if estimate.low is not None and estimate.high is not None:
        svg.add(group, "line", x1=f"{x(estimate.low):.2f}%", x2=f"{x(estimate.high):.2f}%", y1=y, y2=y)
    svg.add(group, "circle", cx=f"{x(estimate.value):.2f}%", cy=y, r=5 if css == "now" else 4)


def learning_curve(member: str, history: History) -> Markup:
    """Draw a member's training and validation loss over epochs; the best epoch is ringed."""
    series = {name: _points(history, f"{name}_loss") for name in ("train", "val")}
    losses = [loss for points in series.values() for _, loss in points] or [0.0]
    epochs = [epoch for points in series.values() for epoch, _ in points] or [0.0]
    marks = svg.ticks(min(losses), max(losses), 4)
    x, y = svg.scale((min(epochs), max(epochs)), (44, 324)), svg.scale((marks[0], marks[-1]), (152, 12))
    desc = f"{len(history)} epochs; {describe_best(history)}."
    root = svg.canvas(f"Learning curves of {member}", desc, css="chart curves", view_box="0 0 340 186")
    for mark in marks:
        svg.add(root, "line", css="grid", x1=44, x2=332, y1=y(mark), y2=y(mark))
        svg.add(root, "text", f"{mark:g}", css="tick", x=38, y=y(mark) + 4, text_anchor="end")
    for epoch in sorted({round(epoch) for epoch in (min(epochs), (min(epochs) + max(epochs)) / 2, max(epochs))}):
        svg.add(root, "text", str(epoch), css="tick", x=x(epoch), y=168, text_anchor="middle")
    svg.add(root, "text", "epoch", css="tick", x=188.0, y=183, text_anchor="middle")
    for name, points in series.items():
        _draw_series(root, name, [(x(epoch), y(loss)) for epoch, loss in points])
    if series["val"]:
        best, lowest = min(series["val"], key=lambda point: point[1])
        svg.add(root, "circle", css="best", cx=x(best), cy=y(lowest), r=5)
    return svg.markup(root)


def _points(history: History, key: str) -> list[tuple[float, float]]:
    points = [(row["epoch"], row.get(key, math.nan)) for row in history]
    return [(epoch, value) for epoch, value in points if math.isfinite(value)]


def _draw_series(root: ET.Element, name: str, points: Sequence[tuple[float, float]]) -> None:
    if len(points) > 1:
        svg.add(root, "polyline", css=f"series {name}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    for x, y in points if len(points) <= 12 else []:
        svg.add(root, "circle", css=f"point {name}", cx=x, cy=y, r=2.5)


def describe_best(history: History, metric: str = "accuracy") -> str:
    """Say which epoch had the lowest validation loss."""
    points = _points(history, "val_loss")
    if not points:
        return "no validation loss was recorded"
    epoch, loss = min(points, key=lambda point: point[1])
    score = next((row.get("val_score") for row in history if row["epoch"] == epoch), None)
    reached = "" if score is None else f", {metric} {numbers.metric(score)}"
    return f"best epoch {epoch:g}: validation loss {numbers.metric(loss)}{reached}"


def reliability(calibration: Calibration) -> Markup:
    """Draw each bin's share of right answers over its confidence; on the diagonal the two are equal.

    A dot's area goes with the number of its units.
    """
    x, y = svg.scale((0, 1), (44, 324)), svg.scale((0, 1), (292, 12))
    desc = "; ".join(
        f"confidence {numbers.metric(each.confidence)}: {numbers.metric(each.accuracy)} of {each.units:,} right"
        for each in calibration.bins
    )
    root = svg.canvas("Share of right answers by confidence", desc, css="chart curves", view_box="0 0 340 326")
    for mark in (0, 0.25, 0.5, 0.75, 1):
        svg.add(root, "line", css="grid", x1=x(mark), x2=x(mark), y1=y(0), y2=y(1))
        svg.add(root, "line", css="grid", x1=x(0), x2=x(1), y1=y(mark), y2=y(mark))
        svg.add(root, "text", f"{mark:g}", css="tick", x=x(mark), y=308, text_anchor="middle")
        svg.add(root, "text", f"{mark:g}", css="tick", x=38, y=y(mark) + 4, text_anchor="end")
    svg.add(root, "text", "confidence", css="tick", x=x(0.5), y=323, text_anchor="middle")
    svg.add(root, "line", css="reference", x1=x(0), x2=x(1), y1=y(0), y2=y(1))
    most = max((each.units for each in calibration.bins), default=1)
    for each in calibration.bins:
        radius = max(2.5, 10 * math.sqrt(each.units / most))
        dot = svg.add(root, "circle", css="bin", cx=x(each.confidence), cy=y(each.accuracy), r=round(radius, 1))
        svg.add(dot, "title", f"{each.units:,} answers, {numbers.metric(each.accuracy)} of them right")
    return svg.markup(root)


def latency(benchmark: Benchmark) -> Markup:
    """Draw p50, p95 and p99 per batch size, from zero."""
    batches = by_size(benchmark)
    longest = max((batch.p99_ms or batch.p95_ms for batch in batches), default=0.0)
    width = svg.scale((0, longest), (0, 66))
    desc = "; ".join(
        f"batch {b.batch_size}: p50 {numbers.milliseconds(b.p50_ms)}, p95 {numbers.milliseconds(b.p95_ms)}"
        for b in batches
    )
    root = svg.canvas(
        f"Latency per call on {benchmark.device}", desc, css="chart latency", width="100%", height=94 * len(batches)
    )
    for position, batch in enumerate(batches):
        _draw_batch(root, batch, width, 94 * position)
    return svg.markup(root)


def _draw_batch(root: ET.Element, batch: Latency, width: svg.Scale, top: int) -> None:
    svg.add(root, "text", f"Batch {batch.batch_size}", css="group", x=0, y=top + 16)
    throughput = numbers.rate(batch.examples_per_second)
    svg.add(root, "text", throughput, css="value", x="100%", y=top + 16, text_anchor="end")
    for row, name in enumerate(("p50", "p95", "p99")):
        value, y = getattr(batch, f"{name}_ms"), top + 26 + 20 * row
        svg.add(root, "text", name, css="tick", x=0, y=y + 11)
        if value is None:
            svg.add(root, "text", NOT_MEASURED, css="tick", x=34, y=y + 11)
            continue
        bar = svg.add(root, "svg", x=34, y=y, width="100%", height=16, css="lane")
        svg.add(bar, "rect", css=f"bar {name}", x=0, y=1, width=f"{max(width(value), 0.4):.2f}%", height=12, rx=2)
        svg.add(bar, "text", numbers.milliseconds(value), css="label", x=f"{width(value):.2f}%", dx=7, y=11)


def by_size(benchmark: Benchmark) -> list[Latency]:
    """Return the latencies, smallest batch first: sorted as text, batch_16 would come before batch_8."""
    return sorted(benchmark.batches.values(), key=lambda batch: batch.batch_size)
