"""Render a data set's sheet as one HTML file without scripts and without anything fetched."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fuseline.report import bars, dataset_tables, leaks, numbers, tables
from fuseline.report.dataset import Dataset, Drift, Family, Quarantine, Sheet, Spread
from fuseline.report.numbers import count
from fuseline.report.page import Tile, environment

KINDS = {
    "classification": "classification", "multilabel": "several labels a row", "ner": "named entity recognition",
    "qa": "question answering", "generation": "generation of texts",
}  # fmt: skip
MOST_BARS = 24
"""Labels in the chart; the table has them all."""


def render(sheet: Sheet) -> str:
    """Return the page as a whole HTML document."""
    data = sheet.dataset
    return environment().get_template("dataset.html.j2").render(
        sheet=sheet, tiles=tiles(data), sections=sections(data), balance=_balance(data), bars=bars,
        tables=tables, leaks=leaks, dataset_tables=dataset_tables, page=sys.modules[__name__],
    )  # fmt: skip


def is_wide(sheet: Sheet, rows: Sequence[int]) -> bool:
    """Tell whether some of these rows need wide cards."""
    return sheet.dataset.task != "classification" or any(sheet.examples[row].long for row in rows)


def level_spreads(data: Dataset) -> list[str]:
    """Return what is the same in all rows: a sentence says more than a histogram of one bar."""
    return [name for name, spread in data.spreads.items() if spread.low == spread.high]


def title_of(name: str, spread: Spread) -> str:
    """Title a histogram."""
    return name if spread.unit == "px" else f"{name}, length"


def sections(data: Dataset) -> dict[str, str]:
    """Return the sections that the page has: anchor → name."""
    there: dict[str, Any] = {
        "changes": data.drift, "labels": data.labels, "leaks": data.leakage, "contract": data.validation,
    }  # fmt: skip
    named = {
        "changes": "Changes", "examples": "Examples", "labels": "Labels", "modalities": "Modalities",
        "duplicates": "Duplicates", "conflicts": "Conflicts", "leaks": "Leaks", "contract": "Contract",
        "quarantine": "Quarantine", "shards": "Batches",
    }  # fmt: skip
    return {key: name for key, name in named.items() if there.get(key, True)}


def tiles(data: Dataset) -> list[Tile]:
    """Choose the numbers that a reader wants first."""
    dealt = ", ".join(f"{count:,} {name}" for name, count in data.splits.items() if name != "none")
    left = f"{data.splits['none']:,} in no split" if data.splits["none"] else ""
    chosen = [Tile("Rows", f"{data.rows:,}", dealt, left)]
    if data.labels:
        chosen.append(_label_tile(data))
    if data.patterns:
        chosen.append(_pattern_tile(data))
    held_out = sum(one.rows for one in data.leakage.held_out.values()) if data.leakage else 0
    families = count(data.repeats.families, "family", "families")
    chosen += [
        Tile("Rows in duplicates", f"{data.repeats.rows:,}",
             f"{numbers.share(data.repeats.rows, data.rows)} of all, in {families}"),
        Tile("Held out", f"{held_out:,}", "lest something leak between the splits"),
        Tile("Refused", f"{data.quarantine.rows:,}", "rows of batches, in quarantine"),
    ]  # fmt: skip
    return chosen


def _label_tile(data: Dataset) -> Tile:
    totals = {label: sum(counts.values()) for label, counts in data.labels.items()}
    whole, least, most = sum(totals.values()), min(totals.values()), max(totals.values())
    note = f"{numbers.share(least, whole)} to {numbers.share(most, whole)}"
    if least == most:
        note = f"each {numbers.share(least, whole)}"
    return Tile("Labels", f"{len(totals):,}", f"{note} of the {'spans' if data.task == 'ner' else 'rows'}")


def _pattern_tile(data: Dataset) -> Tile:
    (name, rows), *others = data.patterns.items()
    more = count(len(others), "other pattern", "other patterns") if others else "all rows alike"
    return Tile("Hold " + name, numbers.share(rows, data.rows), more)


def _balance(data: Dataset) -> Markup | None:
    if not data.labels:
        return None
    frequent = sorted(data.labels, key=lambda label: -sum(data.labels[label].values()))
    shown = {label: data.labels[label] for label in frequent[:MOST_BARS]}
    what = "spans" if data.task == "ner" else "rows"
    return bars.stacked(
        shown, whole=sum(sum(c.values()) for c in data.labels.values()), what=what, title="Label balance"
    )


def tell_labels(data: Dataset) -> str:
    """Say how even the labels are."""
    totals = {label: sum(counts.values()) for label, counts in data.labels.items()}
    most, least = max(totals, key=lambda one: totals[one]), min(totals, key=lambda one: totals[one])
    if totals[most] == totals[least]:
        told = f"All labels are equally frequent: {count(totals[most], 'row', 'rows')} each."
    elif totals[least]:
        told = f"{most} is {totals[most] / totals[least]:.1f} times as frequent as {least}."
    else:
        absent = sum(count == 0 for count in totals.values())
        told = f"{most} is the most frequent; {count(absent, 'label has', 'labels have')} no example."
    return told + (f" The chart shows the {MOST_BARS} most frequent ones." if len(totals) > MOST_BARS else "")


def tell_repeats(data: Dataset) -> str:
    """Say how much repeats."""
    found = data.repeats
    if not found.families:
        return "No row repeats another."
    exact = count(found.exact, "row has", "rows have")
    kinds = f"{exact} the very content of an earlier one"
    if found.rows - found.families > found.exact:
        kinds += ", the others are near: another size or compression, another case or spacing, a few other words"
    return (
        f"{count(found.families, 'family', 'families')} of rows that repeat each other, {found.rows:,} rows in all; "
        f"{kinds}. A family stays in one split. The largest:"
    )


def tell_conflicts(data: Dataset) -> str:
    """Say how much content stands under several targets."""
    found = data.conflicts
    if not found.contents:
        return "No content stands under more than one target."
    return (
        f"{count(found.contents, 'content stands', 'contents stand')} under more than one target, in {found.rows:,} "
        "rows: at least one of them teaches the model something wrong. Mend them with a batch of the same ids, or "
        "delete them with fuseline forget."
    )


def tell_quarantine(found: Quarantine) -> str:
    """Say how many rows were refused and what to do about it."""
    return (
        f"{count(found.rows, 'row that a batch brought was', 'rows that batches brought were')} not accepted. They "
        "stand in the data version with their reasons: "
        "fuseline quarantine show lists them, fuseline quarantine release takes them in after all."
    )


def tell_drift(drift: Drift) -> str:
    """Say what came, went and changed, and whether the whole looks otherwise."""
    if drift.added == drift.removed == drift.changed == 0:
        return f"Nothing: both versions hold the same {drift.after:,} rows."
    what = "label" if drift.labels else "target"
    parts = {
        "came": drift.added, "went": drift.removed, "changed": drift.changed,
        f"of them got another {what}": drift.relabelled,
    }  # fmt: skip
    listed = ", ".join(f"{number:,} {did}" for did, number in parts.items() if number)
    told = f"{drift.before:,} rows became {drift.after:,}: {listed}."
    moved = [one.what for one in drift.tests if dataset_tables.judge(one.distance, one.p) in ("clearly", "somewhat")]
    return told + (
        f" Spread otherwise than before: {', '.join(moved)}." if moved else " What is measured is spread as before."
    )


def name_targets(family: Family, task: str) -> str:
    """Name a family's targets, most frequent first."""
    if task != "classification":
        return "" if len(family.targets) == 1 else f"{len(family.targets)} targets"
    return ", ".join(f"{target} ({rows:,})" for target, rows in family.targets.items())


def lineage(data: Dataset) -> Mapping[str, str]:
    """Return what pins this version."""
    return {
        "Data revision": data.revision, "Rows": f"{data.rows:,}", "Batches": f"{len(data.shards):,}",
        "Deleted on request": f"{data.forgotten:,}",
    }  # fmt: skip
