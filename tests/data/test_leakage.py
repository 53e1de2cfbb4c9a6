"""The leakage report names what is alike across splits, the row nearer to the test first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fuseline.data import leakage
from fuseline.data.duplicates import Content, Links, Views
from fuseline.data.leakage import find_joined, find_same_across, report
from fuseline.data.split import ABSENT, HeldOut
from fuseline.records import Leakage

TRAIN, VAL, TEST = range(3)
NONE = np.zeros(0, np.int64)


def same(keys: list[int], splits: list[int]) -> set[tuple[int, int]]:
    rows = np.flatnonzero(np.array(splits) != ABSENT)
    found = find_same_across(np.array(keys), rows, np.array(splits, np.int8))
    return set(zip(found.later_P.tolist(), found.earlier_P.tolist(), strict=True))


@pytest.mark.parametrize(
    ("keys", "splits", "found"),
    [
        ([1, 1, 2], [TRAIN, TEST, TEST], {(1, 0)}),
        ([1, 1], [TEST, TRAIN], {(0, 1)}),
        ([1, 1, 1], [TEST, TRAIN, TRAIN], {(0, 1)}),
        ([1, 1, 1], [VAL, TEST, TRAIN], {(0, 2), (1, 2)}),
        ([1, 1, 1], [VAL, TEST, VAL], {(1, 0)}),
        ([1, 1, 2, 2], [TEST, TEST, TRAIN, TRAIN], set()),
        ([1, 1], [TRAIN, ABSENT], set()),
        ([], [], set()),
    ],
)
def test_each_row_nearer_to_the_test_is_paired_with_the_first_nearer_to_training(
    keys: list[int], splits: list[int], found: set[tuple[int, int]]
) -> None:
    assert same(keys, splits) == found


def test_families_are_groups_that_duplicates_tie() -> None:
    links = Links(np.array([2, 4, 5]), np.array([0, 2, 1]))
    joined, largest = find_joined(np.array([0, 1, 2, 2, 3, 1, ABSENT]), links, np.ones(7, bool))
    assert joined.tolist() == [True, False, True, True, True, False, False]
    assert largest == 4


def test_without_duplicates_nothing_is_joined() -> None:
    assert find_joined(np.array([0, 1]), Links(NONE, NONE), np.ones(2, bool))[1] == 0
    assert find_joined(NONE, Links(NONE, NONE), np.ones(0, bool))[1] == 0


def make_report(count: int, held_out: list[HeldOut]) -> Leakage:
    """Report on rows of one text, every other in test."""
    whole = np.zeros((0, 0), np.int64)
    text = Content(np.ones(count, bool), np.ones(count, np.int64), np.full(count, -1), whole, lambda a, b: a == b)
    ids = pa.chunked_array([[f"e{number}" for number in range(count)]])
    splits = np.arange(count, dtype=np.int8) % 2 * TEST
    views = Views(pa.table({}), np.arange(count))
    return report(ids, np.arange(count), splits, Links(NONE, NONE), views, {"text": text}, held_out)


def test_all_are_counted_and_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "EXAMPLES", 3)
    found = make_report(20, [HeldOut(row, "frozen", {TEST: 1}) for row in range(5)])
    assert found.across["same text"].rows == 10
    assert [(one.id, one.other) for one in found.across["same text"].examples] == [
        ("e1", "e0"),
        ("e3", "e0"),
        ("e5", "e0"),
    ]
    assert found.held_out["frozen"].rows == 5
    assert [one.id for one in found.held_out["frozen"].examples] == ["e0", "e1", "e2"]


def test_a_row_held_out_for_one_that_was_itself_held_out_says_so() -> None:
    found = make_report(3, [HeldOut(2, "between", {})])
    assert found.held_out["between"].examples[0].why.endswith("in different splits: rows that were held out before")
