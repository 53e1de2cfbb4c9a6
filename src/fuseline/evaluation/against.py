"""Set the challenger against the champion on the same test rows: overall, by class, by slice, and what flipped.

Shape letters: N rows, U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuseline.evaluation.intervals import power
from fuseline.evaluation.metrics import Groups, estimate_gain
from fuseline.records import Against, ClassRow, Compared, Flip, Flips, Versus
from fuseline.tasks.base import Floats, Ints, Mask, Task, Truth

SHOWN = 50
"""Flips of each kind that the record names."""


@dataclass(frozen=True)
class Answered:
    """What a system says of the test rows' units."""

    task: Task
    """The problem as the system answers it."""
    probs_UC: Floats

    def take(self, units_U: Mask) -> Answered:
        """Keep the chosen units."""
        return Answered(self.task, self.probs_UC[units_U])


@dataclass(frozen=True)
class Rows:
    """The test rows."""

    ids: Sequence[str]
    groups_N: Groups
    texts: Sequence[str | None]
    truth: Truth
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
    drawn, metric = (resamples, confidence), challenger.task.headline
    whole = compare(champion, challenger, rows, np.full(len(rows.groups_N), True), *drawn)
    better, worse = find_flips(champion, challenger, rows)
    return Against(
        champion=version, metric=metric, confidence=confidence, overall=whole,
        power=power([whole.gain[metric]], 0.0, None, confidence, whole.rows),
        per_class=_by_class(champion, challenger, rows.truth),
        slices={
            by: {name: compare(champion, challenger, rows, rows_N, *drawn) for name, rows_N in parts.items()}
            for by, parts in rows.slices.items()
        },
        better=better, worse=worse,
    )  # fmt: skip


def compare(
    champion: Answered, challenger: Answered, rows: Rows, rows_N: Mask, resamples: int, confidence: float
) -> Compared:
    """Compare two systems on some of the rows."""
    truth, units_U = rows.truth.take(rows_N), rows.truth.units(rows_N)
    before, after = (each.take(units_U) for each in (champion, challenger))
    right = [each.task.answers(each.probs_UC, truth) == truth.labels_U for each in (before, after)]
    theirs, ours = (each.task.score(each.probs_UC, truth) for each in (before, after))
    return Compared(
        rows=int(rows_N.sum()), units=len(truth.labels_U), champion=theirs, challenger=ours,
        better=int((right[1] & ~right[0]).sum()), worse=int((right[0] & ~right[1]).sum()),
        gain=estimate_gain(
            after.task, after.probs_UC, before.probs_UC, truth, rows.groups_N[rows_N], resamples, confidence,
            before.task,
        ),
    )  # fmt: skip


def _by_class(champion: Answered, challenger: Answered, truth: Truth) -> dict[str, dict[str, Versus]]:
    tables = (each.task.table(each.probs_UC, truth)[0] for each in (champion, challenger))
    return {one.label: _versus(one, other) for one, other in zip(*tables, strict=True)}


def _versus(theirs: ClassRow, ours: ClassRow) -> dict[str, Versus]:
    return {
        name: Versus(rows=ours.support, champion=getattr(theirs, name), challenger=getattr(ours, name))
        for name in ("precision", "recall", "f1")
    }


def find_flips(champion: Answered, challenger: Answered, rows: Rows) -> tuple[Flips, Flips]:
    """Return the units that went from wrong to right, and those that went from right to wrong."""
    truth = rows.truth
    before_U, after_U = (each.task.answers(each.probs_UC, truth) for each in (champion, challenger))
    was_U, is_U = before_U == truth.labels_U, after_U == truth.labels_U
    row_U = np.repeat(np.arange(len(truth.counts_N)), truth.counts_N)
    first_N = np.cumsum(truth.counts_N) - truth.counts_N

    def tell(unit: int) -> Flip:
        row, classes = int(row_U[unit]), challenger.task.classes
        return Flip(
            id=rows.ids[row], true=classes[truth.labels_U[unit]],
            unit=challenger.task.name_unit(unit - int(first_N[row]), truth, row, rows.texts[row]),
            champion=classes[before_U[unit]], champion_probability=float(champion.probs_UC[unit, before_U[unit]]),
            challenger=classes[after_U[unit]], challenger_probability=float(challenger.probs_UC[unit, after_U[unit]]),
        )  # fmt: skip

    def tell_first(flipped_U: NDArray[np.bool_]) -> Flips:
        units: Ints = np.flatnonzero(flipped_U)
        sure = challenger.probs_UC[units, after_U[units]]
        shown = units[np.argsort(-sure, kind="stable")[:SHOWN]]
        return Flips(count=len(units), shown=[tell(int(unit)) for unit in shown])

    return tell_first(~was_U & is_U), tell_first(was_U & ~is_U)
