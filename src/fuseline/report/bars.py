"""Bars: labels over splits, histograms, and recordings as they look. Colours come from the page's CSS classes."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from markupsafe import Markup

from fuseline.report import numbers, svg
from fuseline.report.dataset import Sound, Spread

LABEL_COLUMNS = 30
ROW = 40
"""Pixels a label takes: its name above its bar."""
WIDTH, HEIGHT = 340, 96
"""Of a histogram, without its scale."""


def stacked(counts: Mapping[str, Mapping[str, int]], whole: int, what: str, title: str) -> Markup:
    """Draw a bar per label, made of one stretch per part.

    Args:
        counts: label → part → count.
        whole: what a label's share is of.
        what: is counted: "rows".
    """
    totals = {label: sum(parts.values()) for label, parts in counts.items()}
    desc = "; ".join(f"{label} {total:,} ({numbers.share(total, whole)})" for label, total in totals.items())
    root = svg.canvas(title, desc, css="chart stacked", width="100%", height=ROW * len(counts))
    x = svg.scale((0, max([*totals.values(), 1])), (0, 100))
    for position, (label, parts) in enumerate(counts.items()):
        top, total = ROW * position, totals[label]
        name = svg.add(root, "text", svg.shorten(label, LABEL_COLUMNS), css="label", x=0, y=top + 14)
        svg.add(name, "title", label)
        value = f"{total:,} · {numbers.share(total, whole)}"
        svg.add(root, "text", value, css="value", x="100%", y=top + 14, text_anchor="end")
        _draw_stretches(root, parts, what, x, top + 20)
    return svg.markup(root)


def _draw_stretches(root: ET.Element, parts: Mapping[str, int], what: str, x: svg.Scale, y: int) -> None:
    svg.add(root, "rect", css="track", x=0, y=y, width="100%", height=11, rx=2)
    start = 0
    for part, count in parts.items():
        if count:
            place = {"x": f"{x(start):.3f}%", "width": f"{x(count):.3f}%"}
            bar = svg.add(root, "rect", css=f"part {part}", y=y, height=11, **place)
            svg.add(bar, "title", f"{part}: {count:,} {what}")
        start += count


def histogram(spread: Spread, title: str) -> Markup:
    """Draw a spread's bins, the median as a line, and what lies beyond them as one bar apart at the right."""
    desc = describe(spread)
    root = svg.canvas(title, desc, css="chart histogram", view_box=f"0 0 {WIDTH} {HEIGHT + 18}")
    bins = len(spread.counts)
    beyond = 24 if spread.over else 0
    x = svg.scale((spread.edges[0], spread.edges[-1]), (2, WIDTH - 2 - beyond))
    y = svg.scale((0, max([*spread.counts, spread.over, 1])), (0, HEIGHT - 6))
    for position in range(bins):
        low, high = spread.edges[position : position + 2]
        between = f"{number(low)} to {number(high)} {spread.unit}"
        _draw_bar(
            root,
            "bar",
            (x(low) + 0.5, x(high) - 0.5),
            y(spread.counts[position]),
            f"{between}: {spread.counts[position]:,} rows",
        )
    if spread.over:
        text = f"{number(spread.edges[-1])} {spread.unit} or more: {spread.over:,} rows"
        _draw_bar(root, "bar over", (WIDTH - 16, WIDTH - 2), y(spread.over), text)
        svg.add(root, "text", "more", css="tick", x=WIDTH - 1, y=HEIGHT + 14, text_anchor="end")
    svg.add(root, "line", css="axis", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT)
    if spread.edges[0] <= spread.median <= spread.edges[-1]:
        middle = x(spread.median)
        svg.add(root, "line", css="median", x1=middle, x2=middle, y1=2, y2=HEIGHT)
    svg.add(root, "text", number(spread.edges[0]), css="tick", x=0, y=HEIGHT + 14)
    last = f"{number(spread.edges[-1])} {spread.unit}"
    svg.add(
        root, "text", last, css="tick", x=WIDTH - 2 - (beyond + 14 if beyond else 0), y=HEIGHT + 14, text_anchor="end"
    )
    return svg.markup(root)


def _draw_bar(root: ET.Element, css: str, x: tuple[float, float], height: float, text: str) -> None:
    if height:
        tall = max(height, 1.0)  # one row among a million is still seen
        bar = svg.add(root, "rect", css=css, x=x[0], y=HEIGHT - tall, width=max(x[1] - x[0], 0.5), height=tall)
        svg.add(bar, "title", text)


def describe(spread: Spread) -> str:
    """Say a spread in words."""
    low, p5, median, p95, high = (
        number(one) for one in (spread.low, spread.p5, spread.median, spread.p95, spread.high)
    )
    if spread.low == spread.high:
        return f"{spread.rows:,} rows, all {low} {spread.unit}"
    return f"{spread.rows:,} rows: {low} to {high} {spread.unit}, median {median}, 90 % from {p5} to {p95}"


def number(value: float) -> str:
    """Format a measured number: whole ones in full, others with three significant digits."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def waveform(sound: Sound) -> Markup:
    """Draw a recording: the largest amplitude in equal stretches of time."""
    count = max(len(sound.peaks), 1)
    root = svg.canvas("Recording", f"{sound.seconds:.2f} seconds", css="chart wave", view_box="0 0 144 40",
                      preserveAspectRatio="none")  # fmt: skip
    for position, peak in enumerate(sound.peaks):
        tall = max(38 * peak, 0.8)
        step = 144 / count
        svg.add(root, "rect", x=step * position + step * 0.15, y=20 - tall / 2, width=step * 0.7, height=tall)
    return svg.markup(root)
