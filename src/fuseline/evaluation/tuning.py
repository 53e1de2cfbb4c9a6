"""What fine-tuning changed, part by part of the test rows."""

from __future__ import annotations

from collections.abc import Mapping

from fuseline.evaluation.metrics import Scored
from fuseline.records import Change, Tuning
from fuseline.tasks.base import Mask


def find_changes(before: Scored, after: Scored, cuts: Mapping[str, Mapping[str, Mask]]) -> Tuning:
    """Set a member before fine-tuning beside the same after it, class by class and slice by slice.

    Args:
        before: its encoders as they were loaded, under a linear head.
        after: the same rows.
        cuts: by the cut's name and the slice's, which of these rows are in it; slices without any are left out.
    """
    classes = zip(*(each.task.table(each.probs_UC, each.truth)[0] for each in (before, after)), strict=True)
    return Tuning(
        classes={one.label: Change(rows=other.support, before=one.f1, after=other.f1) for one, other in classes},
        slices={
            by: {
                name: _compare(before.take(rows_N), after.take(rows_N)) for name, rows_N in cut.items() if rows_N.any()
            }
            for by, cut in cuts.items()
        },
    )


def _compare(before: Scored, after: Scored) -> Change:
    one, other = (each.score()[after.task.headline] for each in (before, after))
    return Change(rows=len(after.truth.counts_N), before=one, after=other)
