"""A data set's numbers as tables of strings, in the order in which its page shows them."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.report import numbers
from fuseline.report.dataset import Dataset, Drift, Quarantine, Refused
from fuseline.report.tables import Column, Table

CHANCE = 1e-3
"""A difference counts as more than chance below this p, as in the data contract."""
LARGE, SMALL = 0.1, 0.02
"""Distances from which a difference is called clear, and below which it is slight."""
SHIFTS = 24


def labels(data: Dataset) -> Table:
    """Count each label's rows per split."""
    names = list(data.splits)
    whole = sum(sum(counts.values()) for counts in data.labels.values())
    rows = [
        [label, *(f"{counts[name]:,}" for name in names), f"{sum(counts.values()):,}",
         numbers.share(sum(counts.values()), whole)]
        for label, counts in data.labels.items()
    ]  # fmt: skip
    columns: list[Column] = [("Label", "text"), *((_split(name), "number") for name in names), ("All", "number"),
                             ("Share", "number")]  # fmt: skip
    return Table("Spans per label and split" if data.task == "ner" else "Rows per label and split", columns, rows)


def _split(name: str) -> str:
    return "in no split" if name == "none" else name


def patterns(data: Dataset) -> Table:
    """Count the rows by what they hold."""
    rows = [[name, f"{count:,}", numbers.share(count, data.rows)] for name, count in data.patterns.items()]
    return Table("Rows by the modalities they hold", (("Holds", "text"), ("Rows", "number"), ("Share", "number")), rows)


def rules(found: Quarantine) -> Table:
    """Count refused rows by the rules they broke."""
    rows = [[rule, f"{count:,}", numbers.share(count, found.rows)] for rule, count in found.rules.items()]
    columns: Sequence[Column] = (("Rule", "text"), ("Rows", "number"), ("Of all refused", "number"))
    return Table("Refused rows by rule; a row may break several", columns, rows)


def refused(rows: Sequence[Refused], caption: str, placed: bool) -> Table:
    """List rows with every reason.

    Args:
        placed: say where each stood in its batch.
    """
    lines = [
        [numbers.DASH if row.id is None else row.id, str(row.batch),
         *([row.where or numbers.DASH] if placed else []), "; ".join(row.reasons.values())]
        for row in rows
    ]  # fmt: skip
    where: list[Column] = [("Where", "text")] if placed else []
    return Table(caption, [("Row", "text"), ("Batch", "number"), *where, ("Why", "prose")], lines)


def shards(data: Dataset) -> Table:
    """List the shards with what became of their rows."""
    rows = [
        [str(number), one.source or one.file, f"{one.rows:,}", f"{one.superseded:,}", f"{one.supersedes:,}",
         f"{one.quarantined:,}", ", ".join(one.waives) or numbers.DASH]
        for number, one in enumerate(data.shards)
    ]  # fmt: skip
    columns: Sequence[Column] = (("Batch", "number"), ("From", "text"), ("Rows", "number"),
                                 ("Replaced since", "number"), ("Replaces", "number"),
                                 ("Refused", "number"), ("Waived rules", "text"))  # fmt: skip
    return Table("Batches, in the order in which they came in", columns, rows)


def tests(drift: Drift) -> Table:
    """List what was compared, with the outcome in words."""
    rows = [
        [one.what, judge(one.distance, one.p), numbers.metric(None if one.p is None else one.distance),
         probability(one.p), one.kind, f"{one.before:,}", f"{one.after:,}"]
        for one in drift.tests
    ]  # fmt: skip
    columns: Sequence[Column] = (("Spread of", "text"), ("Differs", "text"), ("Distance", "number"), ("p", "number"),
                                 ("Test", "text"), ("Before", "number"), ("Now", "number"))  # fmt: skip
    return Table("Is it spread as before?", columns, rows)


def judge(distance: float, p: float | None) -> str:
    """Say in words how much two versions differ in something."""
    if p is None:
        return "nothing to compare"
    if distance == 0:
        return "not at all"
    if p >= CHANCE:
        return "no more than by chance"
    return "clearly" if distance >= LARGE else "slightly" if distance < SMALL else "somewhat"


def probability(p: float | None) -> str:
    """Format a p-value."""
    return numbers.DASH if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def shifts(drift: Drift) -> Table:
    """Set each label's share against that before; the largest change first."""
    before, after, added = (sum(getattr(one, name) for one in drift.labels) for name in ("before", "after", "added"))
    lines = sorted(drift.labels, key=lambda one: -abs(_share(one.after, after) - _share(one.before, before)))[:SHIFTS]
    rows = [
        [one.label, f"{one.before:,}", numbers.share(one.before, before), f"{one.after:,}",
         numbers.share(one.after, after), points(_share(one.after, after) - _share(one.before, before)),
         numbers.share(one.added, added)]
        for one in lines
    ]  # fmt: skip
    columns: Sequence[Column] = (
        ("Label", "text"), ("Before", "number"), ("Share", "number"), ("Now", "number"), ("Share", "number"),
        ("Change in points", "number"), ("Share of what came", "number"),
    )  # fmt: skip
    return Table("Labels, largest change of share first", columns, rows)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def points(change: float) -> str:
    """Format a change of share in percentage points."""
    text = f"{100 * change:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def relabelled(drift: Drift) -> Table:
    """List rows with another target than before."""
    rows = [[one.id, _short(one.before), _short(one.after)] for one in drift.shown_relabelled]
    return Table("Rows with another target", (("Row", "text"), ("Before", "text"), ("Now", "text")), rows)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
