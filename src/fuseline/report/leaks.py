"""What was done against leaks between the splits, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.records import Leakage
from fuseline.report.numbers import count
from fuseline.report.tables import Column, Table

REASONS = {
    "between": "ties rows together that are in different splits",
    "declared": "names another split than its family is in",
    "frozen": "belongs to the test split, which takes no more",
}
EACH = 8
"""Rows listed of each kind."""


def tell(found: Leakage) -> str:
    """Say in a sentence or two what was done against leaks, and what is alike across the splits nevertheless."""
    held = sum(one.rows for one in found.held_out.values())
    alike = {kind: one.rows for kind, one in found.across.items() if one.rows}
    told = (
        f"{count(found.duplicates, 'row repeats', 'rows repeat')} an earlier one and "
        f"{'shares' if found.duplicates == 1 else 'share'} its split; "
        + (
            f"{count(held, 'row is', 'rows are')} held out, which no split could take without a leak. "
            if held
            else "none had to be held out. "
        )
    )
    if not alike:
        return told + "No text, picture or sound is in two splits."
    listed = ", ".join(f"{rows:,} with the {kind}" for kind, rows in alike.items())
    return (
        told
        + "Rows that as a whole differ from all others, but share one modality with a split nearer to training: "
        + f"{listed}."
    )


def summary(found: Leakage) -> Table:
    """Say what was done against leaks, and what is alike in one modality nevertheless."""
    rows = [
        ["Rows that repeat an earlier one", f"{found.duplicates:,}", "go to the same split"],
        ["Rows in groups that duplicates join", f"{found.joined:,}",
         f"all groups of a family go to the same split; the largest has {found.largest_family:,} rows"
         if found.joined else "go to the same split"],
    ]  # fmt: skip
    rows += [
        [f"Held out: {REASONS.get(why, why)}", f"{one.rows:,}", "is in no split"] for why, one in found.held_out.items()
    ]
    rows += [
        [f"{kind.capitalize()} as in a split nearer to training", f"{one.rows:,}",
         "in this modality alone; the rows differ as a whole"]
        for kind, one in found.across.items()
    ]  # fmt: skip
    return Table(
        "What was looked for, and what became of it", (("What", "text"), ("Rows", "number"), ("And so", "prose")), rows
    )


def held_out(found: Leakage) -> Table:
    """Name the first rows that are in no split, and why."""
    rows = [[row.id, row.why] for one in found.held_out.values() for row in one.examples[:EACH]]
    return Table("Held out", (("Row", "text"), ("Why", "prose")), rows)


def across(found: Leakage) -> Table:
    """Name the first rows that are like one in another split in one modality."""
    rows = [
        [row.id, row.split, kind, row.other, row.other_split]
        for kind, one in found.across.items()
        for row in one.examples[:EACH]
    ]
    columns: Sequence[Column] = (("Row", "text"), ("Split", "text"), ("Has the", "text"), ("As row", "text"),
                                 ("In split", "text"))  # fmt: skip
    return Table("Alike in one modality", columns, rows)
