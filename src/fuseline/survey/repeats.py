"""Find families of rows that repeat each other, and contents that stand under several targets.

Shape letters: N rows in order of arrival, R rows that stand.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fuseline.data.duplicates import Links, mix
from fuseline.data.facts import KEYS
from fuseline.report.dataset import Conflicts, Family, Repeats
from fuseline.survey.numbers import NONE
from fuseline.survey.rows import Bools, Held, Ints

FAMILIES = 6
"""How many families are shown of each kind."""
MEMBERS = 6
"""How many rows are shown of each."""


def find_keys(table: pa.Table) -> Ints:
    """Return a number per row that is equal where text, picture and sound are; rows without any equal no other."""
    columns = [table[name].fill_null(0).to_numpy() for name in KEYS]
    keys = mix(columns)
    empty = np.flatnonzero(~np.any(columns, axis=0))
    keys[empty] = empty
    return keys


def find_repeats(held: Held, links: Links) -> Repeats:
    """Put rows that repeat each other into families; the largest exact and near ones are described.

    Args:
        links: between all N rows; those of superseded rows do not count.
    """
    both = held.live_N[links.later_P] & held.live_N[links.earlier_P]
    if not both.any():
        return Repeats(families=0, rows=0, exact=0, largest=[])
    ends, nodes = (links.later_P[both], links.earlier_P[both]), len(held.live_N)
    _, family_N = connected_components(coo_array((np.ones(len(ends[0])), ends), (nodes, nodes)), directed=False)
    keys_N = find_keys(held.table)
    size_F, kinds_F = np.bincount(family_N), _count_kinds(family_N, keys_N)
    repeats_F = size_F > 1
    chosen = [
        family
        for wanted_F in (repeats_F & (kinds_F == 1), repeats_F & (kinds_F > 1))
        for family in _largest(size_F, wanted_F)
    ]
    rows = [np.flatnonzero(family_N == family) for family in sorted(chosen, key=lambda one: (-size_F[one], one))]
    return Repeats(
        families=int(repeats_F.sum()),
        rows=int(size_F[repeats_F].sum()),
        exact=int((size_F - kinds_F)[repeats_F].sum()),
        largest=[describe(held, one, keys_N[one], exact=kinds_F[family_N[one[0]]] == 1) for one in rows],
    )


def find_conflicts(held: Held) -> Conflicts:
    """Find rows whose content stands under another target too."""
    if not len(held.rows):
        return Conflicts(contents=0, rows=0, first=[])
    _, content_R = np.unique(find_keys(held.live), return_inverse=True)
    targets_R = held.live["target"].fill_null(NONE).combine_chunks().dictionary_encode().indices.to_numpy()
    size_C, several_C = np.bincount(content_R), _count_kinds(content_R, targets_R) > 1
    rows = [np.flatnonzero(content_R == content) for content in _largest(size_C, several_C)]
    return Conflicts(
        contents=int(several_C.sum()),
        rows=int(size_C[several_C].sum()),
        first=[describe(held, held.rows[one], targets_R[one], exact=True) for one in rows],
    )


def _count_kinds(family_R: Ints, kind_R: Ints) -> Ints:
    """Return for each family how many kinds there are among its rows."""
    order = np.lexsort((kind_R, family_R))
    family, kind = family_R[order], kind_R[order]
    new = np.concatenate([[True], (family[1:] != family[:-1]) | (kind[1:] != kind[:-1])])
    return np.bincount(family[new])


def _largest(size_F: Ints, wanted_F: Bools) -> list[int]:
    """Return the largest of the wanted families, the earlier first where they are of one size."""
    families = np.flatnonzero(wanted_F)
    chosen: list[int] = families[np.argsort(-size_F[families], kind="stable")][:FAMILIES].tolist()
    return chosen


def describe(held: Held, rows: Ints, kinds: Ints, exact: bool) -> Family:
    """Describe a family; of each kind among its rows one is shown before any is shown twice."""
    targets = Counter(target or NONE for target in held.table["target"].take(pa.array(rows)).to_pylist())
    new = np.zeros(len(rows), bool)
    new[np.unique(kinds, return_index=True)[1]] = True
    shown = np.concatenate([rows[new], rows[~new]])[:MEMBERS]
    return Family(rows=len(rows), exact=exact, targets=dict(targets.most_common(12)), shown=sorted(shown.tolist()))
