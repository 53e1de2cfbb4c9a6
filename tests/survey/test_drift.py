"""What changed between two versions, and whether chance explains it: counted and computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fuseline.report.dataset import Relabelled, Shift
from fuseline.survey import drift
from fuseline.survey.drift import compare, compare_numbers, compare_shares
from fuseline.survey.rows import Held

Hold = Callable[..., Held]
OLD = [
    {"id": "a", "text": "one"},
    {"id": "b", "text": "two"},
    {"id": "c", "text": "three"},
    {"id": "d", "text": "four"},
]


def test_rows_that_came_went_changed_and_were_relabelled_are_counted(hold: Hold) -> None:
    before = hold(OLD, name="old")
    after = hold(
        [OLD[0], OLD[1] | {"target": "blue"}, OLD[2] | {"text": "tree"}, {"id": "e", "text": "five", "target": "blue"}],
        name="new",
    )
    found = compare(before, after, "HEAD~1", "0" * 32)
    assert (found.before, found.after) == (4, 4)
    assert (found.added, found.removed, found.changed, found.relabelled) == (1, 1, 2, 1)
    assert found.shown_added == [3]
    assert found.shown_removed == ["d"]
    assert found.shown_relabelled == [Relabelled(row=1, id="b", before="red", after="blue")]
    assert found.labels == [
        Shift(label="blue", before=0, after=2, added=1), Shift(label="red", before=4, after=2, added=0),
    ]  # fmt: skip


def test_a_correction_is_a_change_and_its_older_self_counts_no_more(hold: Hold) -> None:
    before = hold(OLD, name="old")
    after = hold(OLD, [{"id": "b", "text": "two", "target": "blue"}], supersedes=(0, 1), name="new")
    found = compare(before, after, "HEAD~1", "0" * 32)
    assert (found.added, found.removed, found.changed, found.relabelled) == (0, 0, 1, 1)
    assert found.shown_relabelled[0].row == 4


def test_the_same_version_has_not_changed(hold: Hold) -> None:
    held = hold(OLD)
    found = compare(held, held, "HEAD", "0" * 32)
    assert (found.added, found.removed, found.changed, found.relabelled) == (0, 0, 0, 0)
    assert [one.distance for one in found.tests] == [0.0, 0.0, 0.0]
    assert [one.what for one in found.tests] == ["labels", "text length", "modalities that rows hold"]


@pytest.mark.parametrize(("old", "new"), [((), ([{"text": "a"}],)), (([{"text": "a"}],), ()), ((), ())])
def test_an_empty_version_can_be_compared(hold: Hold, old: tuple[object, ...], new: tuple[object, ...]) -> None:
    found = compare(hold(*old, name="old"), hold(*new, name="new"), "HEAD", "0" * 32)
    assert (found.added, found.removed) == (len(new), len(old))
    assert all(one.p is None for one in found.tests)


def test_shares_are_compared_by_total_variation_and_chi_squared() -> None:
    found = compare_shares("labels", {"red": 30, "blue": 10}, {"red": 20, "blue": 20})
    assert found.distance == pytest.approx(0.25)
    assert found.p == pytest.approx(0.02092, abs=1e-5)  # chi-squared 16/3 with 1 degree of freedom
    assert (found.before, found.after) == (40, 40)


def test_a_label_that_is_new_has_a_share_of_nothing_before() -> None:
    assert compare_shares("labels", {"red": 4}, {"red": 2, "blue": 2, "green": 0}).distance == pytest.approx(0.5)
    assert compare_shares("labels", {"red": 4}, {"red": 9}).p == 1.0


def test_measured_numbers_are_compared_by_the_largest_gap_of_their_distributions() -> None:
    found = compare_numbers("length", np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6]))
    assert found.distance == pytest.approx(0.5)
    assert found.p is not None
    assert found.p > 0.4
    apart = compare_numbers("length", np.zeros(50), np.ones(50))
    assert apart.distance == 1
    assert apart.p is not None
    assert apart.p < 1e-9


def test_the_test_looks_at_a_bounded_sample(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "SAMPLE", 3)
    before, after = hold(OLD, name="old"), hold([*OLD, {"id": "e", "text": "five"}], name="new")
    lengths = next(one for one in compare(before, after, "HEAD", "0").tests if one.what == "text length")
    assert (lengths.before, lengths.after) == (3, 3)


def test_a_task_without_labels_compares_the_length_of_targets(hold: Hold) -> None:
    def held(target: str, name: str) -> Held:
        rows = [{"id": str(n), "text": "x", "target": target} for n in range(40)]
        return hold(rows, task="generation", labels=(), name=name)

    found = compare(held("ab", "old"), held("abcdef", "new"), "HEAD", "0")
    assert found.labels == []
    assert (found.tests[0].what, found.tests[0].distance) == ("target length", 1.0)
    assert found.relabelled == 40
