"""Families and conflicts are those that a hand would find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fuseline.config import Duplicates
from fuseline.data.duplicates import Links, find_links, read_contents
from fuseline.data.facts import find_facts
from fuseline.data.shards import read_examples
from fuseline.report.dataset import Family
from fuseline.survey.repeats import FAMILIES, MEMBERS, find_conflicts, find_repeats
from fuseline.survey.rows import Held

Hold = Callable[..., Held]
SETTINGS = Duplicates(match="all", text_similarity=0.75, image_distance=0.18)
LONG = "the quick brown fox jumps over the lazy dog while the band plays on and on in the old town"


def links(held: Held) -> Links:
    return find_links(read_contents(find_facts(read_examples(held.folder)), SETTINGS), "all")


def test_exact_and_near_families_are_told_apart(hold: Hold) -> None:
    held = hold([{"text": LONG}, {"text": "alone"}, {"text": LONG + " today"}, {"text": "twice"}, {"text": "Twice!"},
                 {"text": LONG.upper()}])  # fmt: skip
    found = find_repeats(held, links(held))
    assert (found.families, found.rows, found.exact) == (2, 5, 2)
    assert found.largest == [
        Family(rows=3, exact=False, targets={"red": 3}, shown=[0, 2, 5]),
        Family(rows=2, exact=True, targets={"red": 2}, shown=[3, 4]),
    ]


def test_superseded_rows_are_in_no_family(hold: Hold) -> None:
    held = hold([{"id": "a", "text": "same"}, {"id": "b", "text": "other"}], [{"id": "a", "text": "new"}],
                supersedes=(0, 1))  # fmt: skip
    tied = Links(np.array([1]), np.array([0]))
    assert find_repeats(held, tied).families == 0
    assert find_repeats(held, Links(np.array([2]), np.array([1]))).rows == 2


def test_of_a_large_family_some_are_shown_and_different_ones_first(hold: Hold) -> None:
    held = hold([{"text": "same"} for _ in range(20)] + [{"text": "near"}])
    tied = Links(np.arange(1, 21), np.zeros(20, np.int64))
    (family,) = find_repeats(held, tied).largest
    assert (family.rows, len(family.shown)) == (21, MEMBERS)
    assert 20 in family.shown


def test_the_largest_families_are_named_all_are_counted(hold: Hold) -> None:
    held = hold([{"text": f"text {n // 2}"} for n in range(40)])
    found = find_repeats(held, links(held))
    assert (found.families, found.rows, found.exact, len(found.largest)) == (20, 40, 20, FAMILIES)


def test_a_content_under_several_targets_is_a_conflict(hold: Hold) -> None:
    rows = [
        ("a", "red"),
        ("a", "red"),
        ("a", "blue"),
        ("b", "red"),
        ("c", "red"),
        ("c", "blue"),
        ("d", "red"),
        ("d", "red"),
    ]
    held = hold([{"text": text, "target": target} for text, target in rows])
    found = find_conflicts(held)
    assert (found.contents, found.rows) == (2, 5)
    assert [(one.rows, one.targets, one.shown) for one in found.first] == [
        (3, {"red": 2, "blue": 1}, [0, 1, 2]), (2, {"red": 1, "blue": 1}, [4, 5]),
    ]  # fmt: skip


def test_another_picture_beside_the_same_text_is_no_conflict(hold: Hold, picture: Callable[..., bytes]) -> None:
    colors = ((1, 2, 3), (200, 9, 9))
    held = hold([{"text": "a", "image": {"bytes": picture(color), "path": None}, "target": target}
                 for color, target in zip(colors, ("red", "blue"), strict=True)])  # fmt: skip
    assert find_conflicts(held).contents == 0


def test_rows_that_hold_nothing_are_no_conflict(hold: Hold) -> None:
    assert find_conflicts(hold([{"target": "red"}, {"target": "blue"}])).contents == 0


@pytest.mark.parametrize("shards", [(), ([],)], ids=["no shard", "an empty one"])
def test_without_rows_there_is_nothing(hold: Hold, shards: tuple[list[object], ...]) -> None:
    held = hold(*shards)
    none = Links(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert (find_repeats(held, none).families, find_conflicts(held).contents) == (0, 0)
