"""The difference as tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuseline.comparison.difference import Delta, Difference, Setting, Side
from fuseline.evaluation.metrics import LOWER_IS_BETTER
from fuseline.records import Flip
from fuseline.report import numbers
from fuseline.report.tables import METRICS

WIDTH = 110
LONGEST = 38
"""Characters of a value or name in its cell."""
LONGEST_NOTE = 400
FLIPS = 3
"""Examples to name of what became right, and of what became wrong."""
Row = tuple[Text | str, ...]
Form = Callable[[float], str]


def show(found: Difference, console: Console, most: int) -> None:
    """Print the difference.

    Args:
        most: how many classes, slices and params to list.
    """
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for heading, side in (("before", found.before), ("after", found.after)):
        console.print(Text(f"{heading:7}", style="bold") + Text(_tell_side(side)), soft_wrap=True)
        for note in side.notes:
            console.print(Text(f"       {cut(note, LONGEST_NOTE)}", style="yellow"), soft_wrap=True)
    console.print(Text(_tell_rows(found)), soft_wrap=True)
    for line in _tell_flips(found):
        console.print(Text(line), soft_wrap=True)
    for note in found.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    console.print()
    console.print(_numbers(found, most))
    for title, settings in (("Params", found.params), ("Code and libraries", found.code)):
        console.print(_settings(title, settings, most) if settings else Text(f"{title}: no difference is known"))


def _tell_side(side: Side) -> str:
    place = "build/ as it is" if side.commit is None else f"commit {side.commit[:10]}"
    data = "" if side.data is None else f", data {side.data[:12]}"
    told = "student" if side.system == "student" else f"ensemble of {', '.join(side.members)}"
    return f"{side.revision} ({place}{data}): {told}"


def _tell_rows(found: Difference) -> str:
    if found.rows is None:
        return (
            f"Not paired: {found.unpaired}. Numbers are of {_count_rows(found.before.test_rows)} before and "
            f"{found.after.test_rows:,} after; a difference between them may be one of the rows."
        )
    if found.rows == found.before.test_rows == found.after.test_rows:
        told = f"Numbers are of the same {_count_rows(found.rows)}."
    else:
        told = (
            f"Numbers are of {_count_rows(found.rows)} that both predicted, of {found.before.test_rows:,} before "
            f"and {found.after.test_rows:,} after."
        )
    assert found.better is not None
    assert found.worse is not None
    better, worse = found.better.count, found.worse.count
    return f"{told} {numbers.count(better, 'answer', 'answers')} became right, {worse:,} wrong."


def _count_rows(rows: int) -> str:
    return numbers.count(rows, "test row", "test rows")


def _tell_flips(found: Difference) -> Iterator[str]:
    """Name the first answers that flipped, both ways."""
    for heading, flips in (("right", found.better), ("wrong", found.worse)):
        if flips is not None and flips.shown:
            yield f"Became {heading}, the surest first:"
            yield from (f"  {_tell_flip(flip)}" for flip in flips.shown[:FLIPS])


def _tell_flip(flip: Flip) -> str:
    place = cut(flip.id) if flip.unit is None else f"{cut(flip.id)}, {cut(flip.unit)}"
    return (
        f"{place}: {flip.champion} {flip.champion_probability:.3f} → {flip.challenger} "
        f"{flip.challenger_probability:.3f}, true {flip.true}"
    )


def _numbers(found: Difference, most: int) -> Table:
    """Put all numbers in one table, so that they stand below each other."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    span = "" if found.rows is None else f"{100 * found.confidence:g} % interval"
    for name, justify in (
        ("", "left"),
        ("before", "right"),
        ("after", "right"),
        ("change", "right"),
        (span, "left"),
        ("rows", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    headline = METRICS[found.headline]
    parts: list[tuple[str, Iterable[Row]]] = [
        ("Metrics", _metrics(found)),
        _moved("Classes, F1", found.classes, "f1", most),
        _moved(f"Slices, {headline}", _slices(found), found.headline, most),
        (
            f"Members, {headline}, own test rows",
            [_row(name, change, found.headline) for name, change in found.members.items()],
        ),
        ("Rows of the data set", _counts(found.data)),
        ("Bundle, as its own run timed it", _bundle(found.bundle)),
    ]
    for title, rows in parts:
        listed = list(rows)
        if listed:
            table.add_row(Text(title, style="bold"))
            for row in listed:
                table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
            table.add_row()
    return table


def _metrics(found: Difference) -> Iterator[Row]:
    for name in METRICS:
        if name in found.metrics:
            yield _row(METRICS[name], found.metrics[name], name)


def _slices(found: Difference) -> dict[str, Delta]:
    cuts = {by.removeprefix("meta."): cut for by, cut in found.slices.items() if len(cut) > 1}
    return {f"{by}: {name}": change for by, cut in cuts.items() for name, change in cut.items()}


def _moved(title: str, changes: Mapping[str, Delta], metric: str, most: int) -> tuple[str, list[Row]]:
    """List what moved: first what did so for sure, then by how far."""
    moved = {name: change for name, change in changes.items() if change.change != 0}

    def rank(item: tuple[str, Delta]) -> tuple[bool, float]:
        return not _sure(item[1]), -abs(item[1].change if item[1].change is not None else float("inf"))

    shown = sorted(moved.items(), key=rank)[:most]
    part = f" ({len(shown)} of {len(moved)} that moved)" if len(shown) < len(moved) else ""
    return f"{title}{part}", [_row(name, change, metric) for name, change in shown]


def _row(name: str, change: Delta, metric: str) -> Row:
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f"[{numbers.gain(change.low)}, {numbers.gain(change.high)}]"
    return (
        f"  {cut(name)}", numbers.metric(change.before), numbers.metric(change.after),
        Text("" if change.change is None else numbers.gain(change.change), style=_style(change, metric)), interval,
        "" if change.rows is None else f"{change.rows:,}",
    )  # fmt: skip


def _sure(change: Delta) -> bool:
    return change.low is not None and change.high is not None and (change.low > 0 or change.high < 0)


def _style(change: Delta, metric: str) -> str:
    """Colour what moved for sure."""
    if not _sure(change) or not change.change:
        return ""
    return "green" if (change.change > 0) != (metric in LOWER_IS_BETTER) else "red"


def _counts(changes: Mapping[str, Delta]) -> Iterator[Row]:
    for name, change in changes.items():
        yield f"  {name}", *_cells(change, numbers.plain), _signed(change.change)


def _bundle(changes: Mapping[str, Delta]) -> Iterator[Row]:
    for name, change in changes.items():
        place, _, what = name.rpartition(".")
        title, form = SERVED[what]
        told = f"  {title}, {place.replace('_', ' ')}" if place else f"  {title}"
        share = None if not change.before or change.change is None else 100 * change.change / change.before
        yield told, *_cells(change, form), _signed(share, 1, " %")


def _size(octets: float) -> str:
    return numbers.size(int(octets))


SERVED: dict[str, tuple[str, Form]] = {
    "bytes": ("size", _size),
    "p50_ms": ("p50", numbers.milliseconds),
    "p95_ms": ("p95", numbers.milliseconds),
    "examples_per_second": ("throughput", numbers.rate),
}
"""By what was measured of a bundle: its title, and how it looks."""


def _cells(change: Delta, form: Form) -> list[str]:
    return [numbers.DASH if value is None else form(value) for value in (change.before, change.after)]


def _signed(change: float | None, decimals: int = 0, unit: str = "") -> str:
    """Format a change with its sign; what rounds to zero has none, and where there is no change, nothing."""
    if change is None:
        return ""
    rounded = round(change, decimals)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else ""
    return f"{sign}{abs(rounded):,.{decimals}f}{unit}"


def _settings(title: str, settings: Mapping[str, Setting], most: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (_count(title, len(settings), most), "before", "after"):
        table.add_column(name, overflow="fold")
    for key, setting in list(settings.items())[:most]:
        table.add_row(Text(f"  {key}"), Text(cut(_value(setting.before))), Text(cut(_value(setting.after))))
    table.add_row()
    return table


def _count(title: str, count: int, most: int) -> str:
    return title if count <= most else f"{title}: {most} of {count} that differ"


def _value(value: Any) -> str:
    """Put a value as params.yaml would have it; what is not there, as a dash."""
    if value is None:
        return numbers.DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def cut(text: str, longest: int = LONGEST) -> str:
    """Shorten a text to fit its cell."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
