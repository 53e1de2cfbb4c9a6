"""Deal examples to train, val and test: by a stable hash of their group, duplicates together, old ones never moved.

Groups that duplicates join form a family, and a family stays on one side. Shards are gone through in the order in which
they came in, superseded rows included, and each is dealt by what it finds there: whatever a new batch contains, no
row before it moves.
Shape letters: N rows in order of arrival, G groups, B rows of one batch, K families of one batch, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fuseline.config import Prepare
from fuseline.data.duplicates import Links

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST, HELD_OUT = range(4)
"""Where a row goes: the number of its split, or to none."""
ABSENT = -1

Ints = NDArray[np.int64]
Codes = NDArray[np.int8]
Bools = NDArray[np.bool_]


def split_of(group: str, salt: str, val: float, test: float) -> str:
    """Return the split of a group: the same for ever, whatever other groups there are."""
    position = _position(f"{salt}/{group}")
    if position < test:
        return "test"
    return "val" if position < test + val else "train"


def split_without_test(group: str, salt: str, val: float, test: float) -> str:
    """Return the split of a group that comes too late for the test split: its share is dealt to the others."""
    position = _position(f"{salt}/{group}")
    if position < test:
        return "val" if position / test < val / (1 - test) else "train"
    return split_of(group, salt, val, test)


def _position(key: str) -> float:
    """Map a key to [0, 1), uniformly."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


@dataclass(frozen=True)
class Arrivals:
    """Rows in order of arrival, superseded ones included."""

    sizes: Sequence[int]
    """Rows of each shard."""
    ids_N: Ints
    """Number of each row's id; ABSENT for none."""
    groups_N: Ints
    """Number of each row's group; ABSENT for none, which is a group of its own."""
    names_G: Sequence[str]
    """The groups' names."""
    declared_N: Codes
    """The split that the row itself names; ABSENT for none."""
    pinned_N: Codes
    """Where the row stays, whatever else there is, HELD_OUT included; ABSENT for no pin."""


@dataclass(frozen=True)
class HeldOut:
    """A row that goes to no split."""

    row: int
    why: str
    """A key of REASONS."""
    others: dict[int, int]
    """Split → the first row there that its family is tied to."""


REASONS = {
    "between": "its family ties rows together that are in different splits",
    "declared": "it names a split that its family is not in",
    "frozen": "it belongs to the test split, which takes no more examples",
}


@dataclass(frozen=True)
class Dealing:
    """Where each row goes."""

    splits_N: Codes
    held_out: list[HeldOut]


def deal(arrivals: Arrivals, links: Links, settings: Prepare) -> Dealing:
    """Deal all rows, shard by shard.

    A family goes where the rows are that it is tied to, or pinned rows among its own; if these are in several splits,
    to none. One that is tied to nothing yet goes where its rows say they belong, to test rather than val rather than
    train, and its rows that say otherwise to none; one that says nothing, by the hash of the group that came first.
    With `val_from_train`, rows that say train may be in val as well, where that hash sends val's share of those that
    say nothing else.

    Args:
        links: duplicates; those between a row and earlier ones depend on these alone.
    """
    ties = Links.join([links, _tie_equal(arrivals.ids_N)])  # a correction stays where the example was
    order = np.argsort(ties.later_P, kind="stable")
    later_P, earlier_P = ties.later_P[order], ties.earlier_P[order]
    dealt, start = _Dealt.nothing(arrivals), 0
    for shard, size in enumerate(arrivals.sizes):
        if not size:
            continue
        here = slice(*np.searchsorted(later_P, [start, start + size]))
        frozen = settings.freeze_test is not None and shard >= settings.freeze_test
        batch = _gather(arrivals, dealt, slice(start, start + size), Links(later_P[here], earlier_P[here]), frozen)
        _deal_batch(batch, dealt, _choose(batch, arrivals, settings, frozen), frozen, settings.val_from_train)
        start += size
    return Dealing(dealt.splits_N, dealt.held_out)


def find_families(arrivals: Arrivals, links: Links) -> Ints:
    """Return the number of each row's family over all batches: what ids, groups and duplicates join, step by step."""
    ties, size = Links.join([links, _tie_equal(arrivals.ids_N), _tie_equal(arrivals.groups_N)]), len(arrivals.ids_N)
    _, family_N = connected_components(
        coo_array((np.ones(len(ties)), (ties.later_P, ties.earlier_P)), (size, size)), directed=False
    )
    return family_N.astype(np.int64)  # type: ignore[no-any-return]


def _tie_equal(numbers_N: Ints) -> Links:
    """Tie each row to the first of the same number."""
    rows = np.flatnonzero(numbers_N != ABSENT)
    _, first, inverse = np.unique(numbers_N[rows], return_index=True, return_inverse=True)
    earlier = rows[first[inverse]]
    return Links(rows[earlier < rows], earlier[earlier < rows])


@dataclass
class _Dealt:
    """What was dealt so far."""

    splits_N: Codes
    groups_G: Codes
    """Where more rows of a group go; ABSENT while none has come."""
    heads_G: Ints
    """The first row of a group."""
    held_out: list[HeldOut]

    @classmethod
    def nothing(cls, arrivals: Arrivals) -> _Dealt:
        rows, groups = len(arrivals.ids_N), max(len(arrivals.names_G), 1)  # ABSENT has to point somewhere
        return cls(np.full(rows, ABSENT, np.int8), np.full(groups, ABSENT, np.int8), np.zeros(groups, np.int64), [])


@dataclass(frozen=True)
class _Batch:
    """The rows of one shard as families, and the T ties of these to rows before them."""

    rows: slice
    groups_B: Ints
    declared_B: Codes
    pinned_B: Codes
    corrects_B: Bools
    """Whether the row takes the place of one in the test split."""
    family_B: Ints
    heads_K: Ints
    """The first row of each family."""
    new_groups: Ints
    new_heads: Ints
    family_T: Ints
    row_T: Ints
    split_T: Codes


def _gather(arrivals: Arrivals, dealt: _Dealt, rows: slice, links: Links, frozen: bool) -> _Batch:
    """Join the rows of a shard to families: by groups that are new, and by duplicates among them."""
    groups_B, size = arrivals.groups_N[rows], rows.stop - rows.start
    later_P, old_P = links.later_P - rows.start, links.earlier_P < rows.start
    known = np.flatnonzero((groups_B != ABSENT) & (dealt.groups_G[groups_B] != ABSENT))
    fresh = np.flatnonzero((groups_B != ABSENT) & (dealt.groups_G[groups_B] == ABSENT))
    new_groups, head, number = np.unique(groups_B[fresh], return_index=True, return_inverse=True)
    ends = (
        np.concatenate([later_P[~old_P], fresh]),
        np.concatenate([links.earlier_P[~old_P] - rows.start, fresh[head][number]]),
    )
    _, family_B = connected_components(coo_array((np.ones(len(ends[0])), ends), (size, size)), directed=False)
    same_id_P = (arrivals.ids_N[links.later_P] == arrivals.ids_N[links.earlier_P]) & (
        arrivals.ids_N[links.later_P] != ABSENT
    )
    corrects_B = np.zeros(size, bool)
    corrects_B[later_P[old_P & same_id_P & (dealt.splits_N[links.earlier_P] == TEST)]] = True
    pinned_B = arrivals.pinned_N[rows].copy()
    pinned_B[frozen & (pinned_B == TEST) & ~corrects_B] = ABSENT  # pinned before it was frozen from here
    pinned = np.flatnonzero(pinned_B != ABSENT)
    return _Batch(
        rows, groups_B, arrivals.declared_N[rows], pinned_B, corrects_B, family_B,
        heads_K=rows.start + np.unique(family_B, return_index=True)[1],
        new_groups=new_groups, new_heads=rows.start + fresh[head],
        family_T=np.concatenate([family_B[later_P[old_P]], family_B[known], family_B[pinned]]),
        row_T=np.concatenate([links.earlier_P[old_P], dealt.heads_G[groups_B[known]], rows.start + pinned]),
        split_T=np.concatenate(
            [dealt.splits_N[links.earlier_P[old_P]], dealt.groups_G[groups_B[known]], pinned_B[pinned]]
        ),
    )  # fmt: skip


def _choose(batch: _Batch, arrivals: Arrivals, settings: Prepare, frozen: bool) -> Codes:
    """Choose where each family goes."""
    families = len(batch.heads_K)
    tied_KS, named_KS = np.zeros((families, 4), bool), np.zeros((families, 3), bool)
    tied_KS[batch.family_T, batch.split_T] = True
    naming = np.flatnonzero(batch.declared_B != ABSENT)
    named_KS[batch.family_B[naming], batch.declared_B[naming]] = True
    targets_K = np.full(families, HELD_OUT, np.int8)
    one, free, names = tied_KS.sum(1) == 1, ~tied_KS.any(1), named_KS.any(1)
    targets_K[one] = tied_KS[one].argmax(1)
    if frozen:  # a family that names test alone is left with none
        named_KS[:, TEST] = False
    last_K = 2 - named_KS[:, ::-1].argmax(1)
    targets_K[free & named_KS.any(1)] = last_K[free & named_KS.any(1)]
    split = split_without_test if frozen else split_of
    shared_K = free & names & (targets_K == TRAIN) & settings.val_from_train
    for family in np.flatnonzero(free & ~names | shared_K):
        group = arrivals.groups_N[batch.heads_K[family]]
        name = arrivals.names_G[group] if group != ABSENT else ""
        if shared_K[family]:
            targets_K[family] = SPLITS.index(split_of(name, settings.salt, settings.val, 0))
        else:
            targets_K[family] = SPLITS.index(split(name, settings.salt, settings.val, settings.test))
    return targets_K


def _deal_batch(batch: _Batch, dealt: _Dealt, targets_K: Codes, frozen: bool, val_from_train: bool) -> None:
    """Put the rows of a shard where their families go, as far as they may."""
    target_B = targets_K[batch.family_B]
    disagrees_B = (batch.declared_B != ABSENT) & (batch.declared_B != target_B)
    if val_from_train:
        disagrees_B &= (batch.declared_B != TRAIN) | (target_B != VAL)
    late_B = (target_B == TEST) & ~batch.corrects_B & frozen
    splits_B = np.where(disagrees_B | late_B, HELD_OUT, target_B).astype(np.int8)
    splits_B = np.where(batch.pinned_B == ABSENT, splits_B, batch.pinned_B)
    dealt.splits_N[batch.rows] = splits_B
    dealt.groups_G[batch.new_groups] = targets_K[batch.family_B[batch.new_heads - batch.rows.start]]
    pinned = np.flatnonzero((batch.pinned_B != ABSENT) & (batch.pinned_B != HELD_OUT) & (batch.groups_B != ABSENT))
    dealt.groups_G[batch.groups_B[pinned]] = batch.pinned_B[pinned]  # more rows of the group go where it is
    dealt.heads_G[batch.new_groups] = batch.new_heads
    held = np.flatnonzero(splits_B == HELD_OUT)
    if len(held):
        others = _others(batch, splits_B, set(batch.family_B[held].tolist()))
        late_B |= frozen & (batch.declared_B == TEST)
        for row in held.tolist():
            tied = others[batch.family_B[row]]
            why = "frozen" if late_B[row] else "between" if target_B[row] == HELD_OUT else "declared"
            dealt.held_out.append(HeldOut(batch.rows.start + row, why, tied))


def _others(batch: _Batch, splits_B: Codes, families: set[int]) -> dict[int, dict[int, int]]:
    """Return for each family, by split, the first row that it is tied to or holds."""
    wanted = np.array(sorted(families))
    ties, inside = np.isin(batch.family_T, wanted), np.isin(batch.family_B, wanted)
    found: dict[int, dict[int, int]] = {family: {} for family in families}
    rows = np.concatenate([batch.row_T[ties], batch.rows.start + np.flatnonzero(inside)])
    where = zip(
        np.concatenate([batch.family_T[ties], batch.family_B[inside]]).tolist(),
        np.concatenate([batch.split_T[ties], splits_B[inside]]).tolist(),
        rows.tolist(),
        strict=True,
    )
    for family, split, row in sorted(where):
        if split != HELD_OUT:
            found[family].setdefault(split, row)
    return found
