"""Set the challenger against the champion on the same test rows: overall, by class, by slice, and what flipped.

Shape letters: N rows, U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fuseline.evaluation.intervals import power
from fuseline.evaluation.metrics import Groups, Scored, draw, gain_of
from fuseline.records import Against, ClassRow, Compared, Flip, Flips, Versus
from fuseline.tasks.base import Floats, Ints, Mask, Task, Truth

SHOWN = 50
"""Flips of each kind that the record names."""


@dataclass(frozen=True)
class Answered:
    """A system on the test rows, and the class that it answers each unit by."""

    scored: Scored
    answers_U: Ints

    @classmethod
    def of(cls, task: Task, probs_UC: Floats, truth: Truth) -> Answered:
        """Answer rows."""
        return cls(Scored.of(task, probs_UC, truth), task.answers(probs_UC, truth))

    @property
    def right_U(self) -> Mask:
        """Which units it answers rightly."""
        right: Mask = self.answers_U == self.scored.truth.labels_U
        return right

    def take(self, rows_N: Mask) -> Answered:
        """Keep the chosen rows."""
        return Answered(self.scored.take(rows_N), self.answers_U[self.scored.truth.units(rows_N)])


@dataclass(frozen=True)
class Rows:
    """What else is known of the test rows."""

    ids: Sequence[str]
    groups_N: Groups
    texts: Sequence[str | None]
    slices: Mapping[str, Mapping[str, Mask]]
    """By cut, by name: which rows."""


def set_against(
    version: str, champion: Answered, challenger: Answered, rows: Rows, resamples: int, confidence: float
) -> Against:
    """Compare two systems.

    Args:
        version: the champion's.
        resamples: of the bootstrap.
        confidence: coverage of the intervals.
    """

    def compare_on(rows_N: Mask) -> Compared:
        both = champion.take(rows_N), challenger.take(rows_N)
        return compare(*both, rows.groups_N[rows_N], resamples, confidence)

    metric = challenger.scored.task.headline
    whole = compare(champion, challenger, rows.groups_N, resamples, confidence)
    better, worse = find_flips(champion, challenger, rows)
    return Against(
        champion=version, metric=metric, confidence=confidence, overall=whole,
        power=power([whole.gain[metric]], 0.0, None, confidence, whole.rows),
        per_class=_by_class(champion.scored, challenger.scored),
        slices={
            by: {name: compare_on(rows_N) for name, rows_N in parts.items()} for by, parts in rows.slices.items()
        },
        better=better, worse=worse,
    )  # fmt: skip


def compare(
    champion: Answered, challenger: Answered, groups_N: Groups, resamples: int, confidence: float
) -> Compared:  # fmt: skip
    """Compare two systems on all the rows that they are given with."""
    was_U, is_U = champion.right_U, challenger.right_U
    drawn = draw([challenger.scored, champion.scored], groups_N, resamples)
    ours, theirs = drawn.values
    return Compared(
        rows=len(groups_N), units=len(is_U), champion=theirs, challenger=ours,
        better=int((is_U & ~was_U).sum()), worse=int((was_U & ~is_U).sum()), gain=gain_of(drawn, confidence),
    )  # fmt: skip


def _by_class(champion: Scored, challenger: Scored) -> dict[str, dict[str, Versus]]:
    tables = (each.task.table(each.probs_UC, each.truth)[0] for each in (champion, challenger))
    return {one.label: _versus(one, other) for one, other in zip(*tables, strict=True)}


def _versus(theirs: ClassRow, ours: ClassRow) -> dict[str, Versus]:
    return {
        name: Versus(rows=ours.support, champion=getattr(theirs, name), challenger=getattr(ours, name))
        for name in ("precision", "recall", "f1")
    }


def find_flips(champion: Answered, challenger: Answered, rows: Rows) -> tuple[Flips, Flips]:
    """Return the units that went from wrong to right, and those that went from right to wrong."""
    was_U, is_U = champion.right_U, challenger.right_U
    return _tell_flips(~was_U & is_U, champion, challenger, rows), _tell_flips(
        was_U & ~is_U, champion, challenger, rows
    )


def _tell_flips(flipped_U: Mask, champion: Answered, challenger: Answered, rows: Rows) -> Flips:
    units = np.flatnonzero(flipped_U)
    sure = challenger.scored.probs_UC[units, challenger.answers_U[units]]
    shown = units[np.argsort(-sure, kind="stable")[:SHOWN]]
    places = zip(shown.tolist(), *challenger.scored.truth.places(shown), strict=True)
    return Flips(
        count=len(units),
        shown=[_tell_flip(unit, int(row), int(place), champion, challenger, rows) for unit, row, place in places],
    )


def _tell_flip(unit: int, row: int, place: int, champion: Answered, challenger: Answered, rows: Rows) -> Flip:
    task, truth = challenger.scored.task, challenger.scored.truth
    before, after = champion.answers_U[unit], challenger.answers_U[unit]
    return Flip(
        id=rows.ids[row], true=task.classes[truth.labels_U[unit]],
        unit=task.name_unit(place, truth, row, rows.texts[row]),
        champion=task.classes[before], champion_probability=float(champion.scored.probs_UC[unit, before]),
        challenger=task.classes[after], challenger_probability=float(challenger.scored.probs_UC[unit, after]),
    )  # fmt: skip
