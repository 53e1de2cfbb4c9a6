"""Report what is alike across the splits, and which rows were left out lest they leak.

Shape letters: N rows in order of arrival, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fuseline.data.duplicates import Bools, Content, Ints, Links, Views, find_near
from fuseline.data.split import ABSENT, REASONS, SPLITS, Codes, HeldOut
from fuseline.records import Across, Alike, Excluded, Exclusion, Leakage

EXAMPLES = 100
"""How many rows of each kind are named."""
KINDS = {"text": "text", "image": "picture", "audio": "sound"}


def report(
    ids: pa.ChunkedArray,
    groups_N: Ints,
    splits_N: Codes,
    links: Links,
    views: Views,
    contents: Mapping[str, Content],
    held_out: Sequence[HeldOut],
) -> Leakage:
    """Put the report together.

    Args:
        ids: of all N rows.
        splits_N: where each row is; ABSENT for those in no split, for any reason.
        contents: of the views.
        held_out: those of them that are to be named.
    """
    across, splits_V = {}, splits_N[views.row_V]
    for name, content in contents.items():
        there = np.flatnonzero((splits_V != ABSENT) & content.held_N)
        same = views.to_rows(find_same_across(content.key_N, there, splits_V))
        across[f"same {KINDS[name]}"] = _name_pairs(ids, splits_N, same)
        if len(content.buckets_TF):
            near = views.to_rows(find_near(content, there))
            apart = splits_N[near.later_P] != splits_N[near.earlier_P]
            across[f"near {KINDS[name]}"] = _name_pairs(
                ids, splits_N, Links(near.later_P[apart], near.earlier_P[apart])
            )
    joined_N, largest = find_joined(groups_N, links, splits_N != ABSENT)
    return Leakage(
        duplicates=len(np.unique(links.later_P[splits_N[links.later_P] != ABSENT])),
        joined=int(joined_N.sum()),
        largest_family=largest,
        across=across,
        held_out=_name_held_out(ids, held_out),
    )


def find_same_across(keys_N: Ints, rows: Ints, splits_N: Codes) -> Links:
    """Pair each row of val and test with the first row of the same key in train, or else in val."""
    kinds, key = np.unique(keys_N[rows], return_inverse=True)
    first = np.full((len(SPLITS), len(kinds)), len(keys_N))
    for split in range(len(SPLITS)):
        there = np.flatnonzero(splits_N[rows] == split)[::-1]
        first[split, key[there]] = rows[there]  # the earliest is written last
    nearest = np.where(first[0] < len(keys_N), first[0], first[1])
    nearest_split = np.where(first[0] < len(keys_N), 0, 1)
    leaks = (nearest[key] < len(keys_N)) & (splits_N[rows] > nearest_split[key])
    return Links(rows[leaks], nearest[key][leaks])


def find_joined(groups_N: Ints, links: Links, counted_N: Bools) -> tuple[Bools, int]:
    """Return which of the counted rows belong to families of several groups, and the size of the largest family."""
    first, second = groups_N[links.later_P], groups_N[links.earlier_P]
    apart = (first != second) & (first != ABSENT) & (second != ABSENT)
    nodes = int(groups_N.max(initial=0)) + 1
    edges = coo_array((np.ones(int(apart.sum())), (first[apart], second[apart])), (nodes, nodes))
    _, family_G = connected_components(edges, directed=False)
    tied_G = np.bincount(family_G)[family_G] > 1
    joined_N = counted_N & (groups_N != ABSENT) & tied_G[groups_N]
    sizes = np.bincount(family_G[groups_N[joined_N]])
    return joined_N, int(sizes.max(initial=0))


def _name_pairs(ids: pa.ChunkedArray, splits_N: Codes, found: Links) -> Across:
    """Name pairs of rows, the one nearer to the test first."""
    swap = splits_N[found.later_P] < splits_N[found.earlier_P]
    row_P, other_P = np.where(swap, found.earlier_P, found.later_P), np.where(swap, found.later_P, found.earlier_P)
    order = np.lexsort((other_P, row_P))[:EXAMPLES]
    named = zip(*(_take(ids, rows[order]) for rows in (row_P, other_P)), strict=True)
    examples = [
        Alike(id=one, split=SPLITS[splits_N[row]], other=other, other_split=SPLITS[splits_N[at]])
        for (one, other), row, at in zip(named, row_P[order], other_P[order], strict=True)
    ]
    return Across(rows=len(np.unique(row_P)), examples=examples)


def _name_held_out(ids: pa.ChunkedArray, held_out: Sequence[HeldOut]) -> dict[str, Exclusion]:
    found = {}
    for why, words in REASONS.items():
        ones = [one for one in held_out if one.why == why]
        examples = [
            Excluded(id=ids[one.row].as_py(), why=f"{words}: {_name_others(ids, one.others)}")
            for one in ones[:EXAMPLES]
        ]
        found[why] = Exclusion(rows=len(ones), examples=examples)
    return found


def _name_others(ids: pa.ChunkedArray, others: Mapping[int, int]) -> str:
    named = [f"{ids[row].as_py()!r} in {SPLITS[split]}" for split, row in sorted(others.items())]
    return " and ".join(named) or "rows that were held out before"


def _take(ids: pa.ChunkedArray, rows: NDArray[np.int64]) -> list[str]:
    return ids.take(pa.array(rows)).to_pylist()  # type: ignore[no-any-return]
