"""The split is a property of the group: nothing that joins later moves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fuseline.config import Prepare
from fuseline.data.dealing import pin_rows
from fuseline.data.duplicates import Links
from fuseline.data.split import (
    ABSENT,
    HELD_OUT,
    SPLITS,
    TEST,
    TRAIN,
    Arrivals,
    Dealing,
    deal,
    split_of,
    split_without_test,
)

Batches = Sequence[list[Any]]
"""Of rows: id, group, content, declared split, and where one is pinned."""
Dealt = list[list[tuple[Any, int]]]
"""Batches, with each row the split that it is in."""
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


@given(st.text(), shares, shares)
def test_a_group_too_late_for_test_is_dealt_to_the_others_and_no_other_group_moves(
    group: str, val: float, test: float
) -> None:
    before, late = split_of(group, "salt", val, test), split_without_test(group, "salt", val, test)
    assert late != "test"
    assert late == before or before == "test"


def test_late_groups_are_dealt_by_what_is_left_of_the_shares() -> None:
    counts = Counter(split_without_test(f"group {number}", "fuseline", 0.15, 0.25) for number in range(10_000))
    assert counts["val"] / 10_000 == pytest.approx(0.15 / 0.75, abs=0.012)


# --- families -----------------------------------------------------------------------------------------------------

SETTINGS = Prepare.model_validate(
    yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["prepare"]
    | {"salt": "salt", "val": 0.2, "test": 0.2}
)


def place(*batches: list[tuple[str, str | None, str, str | None]], freeze: int | None = None) -> list[list[str]]:
    """Deal batches of rows (id, group, content, declared split): rows of one content are duplicates."""
    return [[NAMES[split] for split in splits] for splits in _place(batches, freeze)[0]]


def _place(batches: Batches, freeze: int | None) -> tuple[list[list[int]], Dealing, Links]:
    rows = [row for batch in batches for row in batch]
    arrivals, links = _arrive(batches), _link([row[2] for row in rows])
    dealing = deal(arrivals, links, SETTINGS.model_copy(update={"freeze_test": freeze}))
    splits = iter(dealing.splits_N.tolist())
    return [[next(splits) for _ in batch] for batch in batches], dealing, links


def _arrive(batches: Batches) -> Arrivals:
    rows = [row for batch in batches for row in batch]
    names = list(dict.fromkeys(row[1] for row in rows if row[1] is not None))
    ids = list(dict.fromkeys(row[0] for row in rows))
    return Arrivals(
        sizes=[len(batch) for batch in batches],
        ids_N=np.array([ids.index(row[0]) for row in rows], np.int64),
        groups_N=np.array([ABSENT if row[1] is None else names.index(row[1]) for row in rows], np.int64),
        names_G=names,
        declared_N=np.array([ABSENT if row[3] is None else SPLITS.index(row[3]) for row in rows], np.int8),
        pinned_N=np.array([row[4] if row[4:] else ABSENT for row in rows], np.int8),
    )


def _link(contents: list[str]) -> Links:
    pairs = [(i, contents.index(content)) for i, content in enumerate(contents) if contents.index(content) < i]
    return Links(np.array([i for i, _ in pairs], np.int64), np.array([j for _, j in pairs], np.int64))


NAMES = [*SPLITS, "held out"]
HOME = {"train": "a", "val": "c", "test": "b"}
"""A group that the hash sends there."""


def row(name: str, group: str | None = None, content: str | None = None, declared: str | None = None) -> Any:
    return name, name if group is None else group, name if content is None else content, declared


def test_the_groups_of_these_tests_are_where_they_are_said_to_be() -> None:
    for split, group in HOME.items():
        assert place([row(group)]) == [[split]]


def test_a_duplicate_goes_where_the_first_of_its_family_is() -> None:
    assert place([row("b"), row("x", "a", content="b")]) == [["test", "test"]]
    assert place([row("b")], [row("x", "a", content="b")]) == [["test"], ["test"]]


def test_a_group_follows_its_member_that_is_a_duplicate() -> None:
    assert place([row("b")], [row("x", "a"), row("y", "a", content="b")]) == [["test"], ["test", "test"]]


def test_a_group_stays_together_over_all_batches() -> None:
    assert place([row("b")], [row("x", "a", content="b")], [row("y", "a")]) == [["test"], ["test"], ["test"]]


def test_a_family_between_two_splits_is_held_out_with_all_its_new_rows() -> None:
    batches = [row("a"), row("b")], [row("x", "g", content="a"), row("y", "g", content="b"), row("z", "g"), row("c")]
    assert place(*batches) == [["train", "test"], ["held out", "held out", "held out", "val"]]
    held = _place(batches, None)[1].held_out
    assert [(one.row, one.why, one.others) for one in held] == [(n, "between", {TRAIN: 0, TEST: 1}) for n in (2, 3, 4)]


def test_what_is_tied_to_held_out_rows_is_held_out() -> None:
    batches = [row("a"), row("b")], [row("x", "g", content="a"), row("y", "g", content="b")], [row("z", "g")]
    assert place(*batches)[2] == ["held out"]


def test_a_new_row_of_an_old_group_that_repeats_another_split_is_held_out_alone() -> None:
    assert place([row("a"), row("b")], [row("x", "a", content="b"), row("y", "a")])[1] == ["held out", "train"]


def test_a_correction_stays_where_the_example_was() -> None:
    assert place([row("x", "b")], [row("x", "a", content="new")]) == [["test"], ["test"]]


def test_rows_without_a_group_are_dealt_each_alone() -> None:
    rows = [("x", None, "x", None), ("y", None, "y", "val"), ("z", None, "y", None)]
    assert place(rows)[0][1:] == ["val", "val"]


def test_a_declared_split_wins_over_the_hash() -> None:
    assert place([row("a", declared="test"), row("b", declared="val"), row("c", declared="train")]) == [
        ["test", "val", "train"]
    ]


def test_the_group_follows_a_declared_split() -> None:
    assert place([row("x", "a", declared="test"), row("y", "a")], [row("z", "a")]) == [["test", "test"], ["test"]]


@pytest.mark.parametrize("copies", [("train", "test"), ("val", "test"), ("train", "val"), ("test", "train")])
def test_of_duplicates_that_name_two_splits_the_one_nearer_to_training_is_held_out(copies: tuple[str, str]) -> None:
    first, second = copies
    placed = place([row("x", content="c", declared=first), row("y", content="c", declared=second)])[0]
    kept = max(copies, key=SPLITS.index)
    assert placed == [kept if copy == kept else "held out" for copy in copies]


def test_a_test_row_that_repeats_an_older_training_row_is_held_out_and_says_why() -> None:
    batches = [row("a", declared="train")], [row("x", content="a", declared="test")]
    assert place(*batches) == [["train"], ["held out"]]
    held = _place(batches, None)[1].held_out
    assert [(one.row, one.why, one.others) for one in held] == [(1, "declared", {TRAIN: 0})]


def test_a_frozen_test_split_takes_no_new_groups() -> None:
    many = [row(f"late {number}") for number in range(200)]
    assert set(place([row("b")], many)[1]) == {"train", "val", "test"}
    assert set(place([row("b")], many, freeze=1)[1]) == {"train", "val"}


def test_a_frozen_test_split_takes_corrections_and_holds_out_copies_and_group_members() -> None:
    late = [row("b", content="mended"), row("x", content="b"), row("y", "b"), row("z", declared="test"), row("a")]
    assert place([row("b")], late, freeze=1)[1] == ["test", "held out", "held out", "held out", "train"]
    held = _place([[row("b")], late], 1)[1].held_out
    assert [one.why for one in held] == ["frozen"] * 3


def test_freezing_after_the_last_shard_moves_nothing() -> None:
    batches = [[row(f"{shard} {number}") for number in range(50)] for shard in range(3)]
    assert place(*batches) == place(*batches, freeze=3)


def test_an_empty_shard_is_no_trouble() -> None:
    assert place([row("a")], [], [row("b")]) == [["train"], [], ["test"]]


few = st.integers(0, 4).map(str)
batch = st.lists(
    st.tuples(few, st.none() | few, few, st.sampled_from([None, None, None, *SPLITS])), min_size=1, max_size=5
)


@given(st.lists(batch, min_size=1, max_size=5), st.none() | st.integers(1, 4))
def test_a_new_batch_never_moves_an_old_row_whatever_it_contains(batches: list[list[Any]], freeze: int | None) -> None:
    whole = _place(batches, freeze)[0]
    for count in range(1, len(batches)):
        assert _place(batches[:count], freeze)[0] == whole[:count]


@given(st.lists(batch, min_size=1, max_size=5), st.none() | st.integers(1, 4))
def test_no_group_and_no_pair_of_duplicates_straddles_two_splits(batches: list[list[Any]], freeze: int | None) -> None:
    splits, dealing, _ = _place(batches, freeze)
    rows = [one for part in batches for one in part]
    for key in (0, 1, 2):  # id, group, content
        for value in {one[key] for one in rows} - {None}:
            found = {dealing.splits_N[i] for i, one in enumerate(rows) if one[key] == value} - {HELD_OUT}
            assert len(found) <= 1
    assert [one.row for one in dealing.held_out] == np.flatnonzero(dealing.splits_N == HELD_OUT).tolist()
    if freeze is not None:
        before = {one[0] for part in batches[:freeze] for one in part}
        late = zip(batches[freeze:], splits[freeze:], strict=True)
        assert all(
            one[0] in before for part, dealt in late for one, split in zip(part, dealt, strict=True) if split == TEST
        )


# --- deletions ----------------------------------------------------------------------------------------------------


def forget(dealt: Dealt, freeze: int | None, gone: set[str]) -> list[list[Any]]:
    """Forget some ids; return the batches without them, pinned as is needed now."""
    was_N = np.array([split for part in dealt for one, split in part if one[0] not in gone], np.int8)
    batches = [[one for one, _ in part if one[0] not in gone] for part in dealt]
    arrivals, links = _arrive(batches), _link([one[2] for part in batches for one in part])
    pins = iter(pin_rows(arrivals, links, SETTINGS.model_copy(update={"freeze_test": freeze}), was_N).tolist())
    return [[pin(one, at) if (at := next(pins)) != ABSENT else one for one in part] for part in batches]


def pin(one: Any, split: int) -> Any:
    return *one[:4], split


def _splits(batches: Batches, freeze: int | None = None) -> Dealt:
    """Return the batches, with each row the split that it is in."""
    return [list(zip(*both, strict=True)) for both in zip(batches, _place(batches, freeze)[0], strict=True)]


def _newest(dealt: Dealt) -> dict[str, int]:
    """Return the split of each id: where its newest row is."""
    return {one[0]: split for part in dealt for one, split in part}


def straddling(dealt: Dealt) -> list[Any]:
    """Return the ids, groups and contents of which rows are in several splits, replaced ones included."""
    found: dict[Any, set[int]] = {}
    for one, split in (row for part in dealt for row in part if row[1] != HELD_OUT):
        for key, value in zip(("id", "group", "content"), one[:3], strict=True):
            if value is not None:
                found.setdefault((key, value), set()).add(split)
    return [key for key, splits in found.items() if len(splits) > 1]


arrival_and_deletion = st.tuples(st.lists(batch, min_size=1, max_size=4), st.sets(few, max_size=3))


@given(st.lists(arrival_and_deletion, min_size=2, max_size=2), st.none() | st.integers(1, 3))
@example(  # "1" is corrected to what "0" shows, from another split, and "2" comes after
    [([[("0", None, "0", None), ("1", "5", "1", None)], [("1", None, "0", None)], [("2", None, "0", None)]], {"0"})],
    None,
)
def test_whoever_is_forgotten_and_whatever_comes_then_no_other_leaves_its_split_and_no_duplicate_straddles(
    rounds: list[Any], freeze: int | None
) -> None:
    batches: list[list[Any]] = []
    after: Dealt = []
    for more, gone in rounds:
        before = _splits([*batches, *more], freeze)
        assert before[: len(batches)] == after
        batches = forget(before, freeze, gone)
        after, home = _splits(batches, freeze), _newest(before)
        assert all(home[name] in (split, HELD_OUT) for name, split in _newest(after).items())
        assert straddling(before) == []
        assert straddling(after) == []


def test_what_was_held_out_joins_the_split_that_its_family_is_in_alone() -> None:
    batches = [row("x", HOME["train"])], [row("y", HOME["test"])], [row("z", HOME["train"], content="y")]
    assert place(*batches)[2] == ["held out"]
    assert place(*forget(_splits(batches), None, {"y"})) == [["train"], [], ["train"]]


def test_what_was_held_out_stays_so_where_its_family_would_be_in_two_splits() -> None:
    batches = [row("x", HOME["test"])], [row("y", HOME["train"])], [row("z", HOME["train"], "x")], [row("u", None, "x")]
    assert place(*batches) == [["test"], ["train"], ["held out"], ["test"]]
    after = forget(_splits(batches), None, {"x"})
    assert place(*after, [row("w", HOME["train"])]) == [[], ["train"], ["held out"], ["test"], ["train"]]


def test_what_was_held_out_stays_so_where_its_group_would_be_in_two_splits() -> None:
    batches = [row("x", declared="test")], [row("y", "g", "x", "train")], [row("z", "g")]
    assert place(*batches) == [["test"], ["held out"], ["test"]]
    assert place(*forget(_splits(batches), None, {"x"})) == [[], ["held out"], ["test"]]


def test_a_version_that_was_held_out_stays_so_though_the_next_one_was_not() -> None:
    first = [row("x", HOME["test"]), row("y", HOME["train"])]
    batches = first, [row("y", None, "x")], [row("u", None, "x")], [row("y", HOME["train"], "new")]
    assert place(*batches) == [["test", "train"], ["held out"], ["test"], ["train"]]
    after = forget(_splits(batches), None, {"x"})
    assert place(*after, [row("w", None, "x")]) == [["train"], ["held out"], ["test"], ["train"], ["held out"]]


def test_later_rows_of_a_group_go_where_its_pinned_row_is_though_its_family_is_torn() -> None:
    first, second, third = [row("p", HOME["train"], "x")], [row("q", HOME["test"], "x")], [row("r", HOME["test"])]
    assert place(first, second, third) == [["train"], ["train"], ["train"]]
    assert place(first, [pin(second[0], TEST)], third) == [["train"], ["test"], ["test"]]
