"""The confusion matrix: as a heat map while its numbers can be read, as pairs for any number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from fuseline.report import svg

MAX_CLASSES = 30
"""With more classes a heat map's numbers can no longer be read."""


@dataclass(frozen=True)
class _Grid:
    """Where cells lie: pixels at full size."""

    margin: float
    cell: int
    side: float

    def at(self, position: float) -> float:
        """Return the pixel of a row or column; 0.5 added gives its middle."""
        return self.margin + self.cell * position


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Draw true labels (rows) against predicted ones (columns), shaded by each row's share."""
    assert len(labels) <= MAX_CLASSES, "use confused_pairs"
    names = svg.shorten_all(labels, 17)
    grid = _lay_out(names)
    right = sum(counts[position][position] for position in range(len(labels)))
    desc = f"{right} of {sum(map(sum, counts))} rows lie on the diagonal, where the prediction is right."
    look = f"max-width:{grid.side:.0f}px;min-width:{0.85 * grid.side:.0f}px"
    box = f"0 0 {grid.side:.0f} {grid.side:.0f}"
    root = svg.canvas("Confusion matrix", desc, css="chart heat", view_box=box, style=look)
    for position, (name, label) in enumerate(zip(names, labels, strict=True)):
        _draw_names(root, name, label, grid, position)
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            _draw_cell(root, labels, (row, column), (count, sum(line)), grid)
    return svg.markup(root)


def _lay_out(names: Sequence[str]) -> _Grid:
    cell = 46 if len(names) <= 10 else 34 if len(names) <= 18 else 27
    margin = 22 + 7.6 * max(svg.columns(name) for name in names)
    return _Grid(margin, cell, margin + cell * len(names) + 2)


def _draw_names(root: ET.Element, name: str, label: str, grid: _Grid, position: int) -> None:
    middle, edge = grid.at(position + 0.5) + 4, grid.margin - 8
    row = svg.add(root, "text", name, css="label", x=edge, y=middle, text_anchor="end")
    turned = f"rotate(-90 {middle:.1f} {edge:.1f})"
    column = svg.add(root, "text", name, css="label", x=middle, y=edge, transform=turned)
    for text in (row, column):
        svg.add(text, "title", label)


def _draw_cell(
    root: ET.Element, labels: Sequence[str], at: tuple[int, int], share: tuple[int, int], grid: _Grid
) -> None:
    (row, column), (count, total) = at, share
    side, y, x = grid.cell - 2, grid.at(row) + 1, grid.at(column) + 1
    if not count:
        svg.add(root, "rect", css="empty", x=x, y=y, width=side, height=side, rx=3)
        return
    # Shades end at 0.55: the page's ink stays readable (contrast over 4.5) on each of them.
    shade, css = 0.1 + 0.45 * count / total, "right" if row == column else "wrong"
    svg.add(root, "rect", css=css, x=x, y=y, width=side, height=side, rx=3, fill_opacity=shade)
    number = svg.add(root, "text", str(count), css="count", x=x + side / 2, y=y + side / 2 + 4, text_anchor="middle")
    meaning = "right" if row == column else f"predicted as {labels[column]}"
    svg.add(number, "title", f"{labels[row]}, {meaning}: {count} of {total}")


def confused_pairs(
    labels: Sequence[str], counts: Sequence[Sequence[int]], most: int
) -> list[tuple[str, str, int, int]]:
    """Return (true, predicted, count, rows of the true label), most frequent confusion first."""
    pairs = [
        (labels[row], labels[column], count, sum(line))
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]
