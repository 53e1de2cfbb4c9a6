"""The split is a property of the group: nothing that joins later moves it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.data.split import SPLITS, split_of

shares = st.floats(0.01, 0.45)


def test_known_groups_stay_where_they_have_always_been() -> None:
    assert {name: split_of(name, "salt", 0.2, 0.2) for name in "abcdef"} == {
        "a": "train", "b": "test", "c": "val", "d": "val", "e": "train", "f": "test",
    }  # fmt: skip


@given(st.text(), st.text(), shares, shares)
def test_a_group_always_goes_to_the_same_split(group: str, salt: str, val: float, test: float) -> None:
    assert split_of(group, salt, val, test) == split_of(group, salt, val, test)
    assert split_of(group, salt, val, test) in SPLITS


@given(st.sets(st.text(), min_size=2))
def test_a_new_group_never_moves_an_old_one(groups: set[str]) -> None:
    *old, _new = sorted(groups)
    before = {group: split_of(group, "salt", 0.15, 0.2) for group in old}
    after = {group: split_of(group, "salt", 0.15, 0.2) for group in groups}
    assert all(after[group] == split for group, split in before.items())


@given(st.text(), shares, shares, st.floats(0.0, 0.1))
def test_a_larger_test_split_keeps_the_groups_it_had(group: str, val: float, test: float, more: float) -> None:
    if split_of(group, "salt", val, test) == "test":
        assert split_of(group, "salt", val, test + more) == "test"


def test_ten_thousand_groups_are_dealt_by_the_shares() -> None:
    counts = Counter(split_of(f"group {number}", "fuseline", 0.15, 0.20) for number in range(10_000))
    assert counts["val"] / 10_000 == pytest.approx(0.15, abs=0.012)
    assert counts["test"] / 10_000 == pytest.approx(0.20, abs=0.012)


def test_another_salt_deals_anew() -> None:
    moved = sum(split_of(str(group), "a", 0.2, 0.2) != split_of(str(group), "b", 0.2, 0.2) for group in range(1000))
    assert 450 < moved < 650  # two independent draws differ in 56 % of the groups


def test_a_share_of_zero_takes_nothing() -> None:
    assert {split_of(str(group), "salt", 0.0, 0.3) for group in range(500)} == {"train", "test"}
