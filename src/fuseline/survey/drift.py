"""Compare two versions of a data set: which rows came, went and changed, and what is spread otherwise than before.

Rows are matched by id. Those that both versions hold count on both sides of a test: p is then rather too large than
too small.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp

from fuseline.data.drift import total_variation
from fuseline.report.dataset import Comparison, Drift, Relabelled, Shift
from fuseline.survey.numbers import NONE, count_patterns, count_targets
from fuseline.survey.rows import Bools, Held, Ints

SAMPLE = 50_000
"""Rows of each version that the test on a measured number looks at, at most."""
SHOWN = 12
NUMBERS = {
    "text length": "text_chars", "second text's length": "pair_chars", "shorter side of pictures": "short_side",
    "longer side of pictures": "long_side", "length of recordings": "audio_seconds",
}  # fmt: skip


def compare(before: Held, after: Held, revision: str, data: str) -> Drift:
    """Compare two versions.

    Args:
        revision: what the user calls the earlier one.
        data: its data revision.
    """
    old, new = before.live, after.live
    at = pc.index_in(new["id"], value_set=old["id"].combine_chunks()).fill_null(-1).to_numpy().astype(np.int64)
    gone = pc.invert(pc.is_in(old["id"], value_set=new["id"].combine_chunks()))
    changed = _differ(old, new, at, "digest")
    relabelled = _differ(old, new, at, "target")
    added = at < 0
    task = after.manifest.task
    return Drift(
        revision=revision, data=data, before=old.num_rows, after=new.num_rows,
        added=int(added.sum()), removed=int(pc.sum(gone).as_py() or 0), changed=int(changed.sum()),
        relabelled=int(relabelled.sum()),
        labels=shift_labels(task, old, new, added) if after.manifest.labels else [],
        tests=[*compare_labels(task, old, new), *compare_measures(old, new), *compare_patterns(old, new)],
        shown_added=after.rows[added][_lot(new, added)[:SHOWN]].tolist(),
        shown_removed=old.filter(gone)["id"].slice(0, SHOWN).fill_null("").to_pylist(),
        shown_relabelled=_name_relabelled(old, new, at, relabelled, after.rows),
    )  # fmt: skip


def _differ(old: pa.Table, new: pa.Table, at: Ints, column: str) -> Bools:
    """Say which rows of the new version have another cell than their former selves."""
    former = old[column].take(pa.array(at, mask=at < 0))
    same = pc.fill_null(pc.equal(former, new[column]), False)
    both_null = pc.and_(former.is_null(), new[column].is_null())
    return (at >= 0) & ~pc.or_(same, both_null).to_numpy()  # type: ignore[no-any-return]


def _name_relabelled(old: pa.Table, new: pa.Table, at: Ints, relabelled: Bools, rows: Ints) -> list[Relabelled]:
    first = np.flatnonzero(relabelled)[:SHOWN]
    ids, targets = new["id"].take(pa.array(first)).to_pylist(), new["target"].take(pa.array(first)).to_pylist()
    former = old["target"].take(pa.array(at[first])).to_pylist()
    return [
        Relabelled(row=int(row), id=one, before=was or NONE, after=now or NONE)
        for row, one, was, now in zip(rows[first], ids, former, targets, strict=True)
    ]


def shift_labels(task: str, old: pa.Table, new: pa.Table, added: Bools) -> list[Shift]:
    """Count each label before, after and among the added rows, the largest first."""
    before, after = count_targets(task, old["target"]), count_targets(task, new["target"])
    came = count_targets(task, new["target"].filter(pa.array(added)))
    labels = sorted(before.keys() | after.keys(), key=lambda label: (-after.get(label, 0), label))
    return [
        Shift(label=label, before=before.get(label, 0), after=after.get(label, 0), added=came.get(label, 0))
        for label in labels
    ]


def compare_labels(task: str, old: pa.Table, new: pa.Table) -> list[Comparison]:
    """Compare the shares of labels, or for a task without labels the lengths of targets."""
    if task in ("classification", "multilabel", "ner"):
        counts = count_targets(task, old["target"]), count_targets(task, new["target"])
        return [compare_shares("labels of spans" if task == "ner" else "labels", *counts)]
    lengths = (pc.utf8_length(table["target"]).drop_null().to_numpy() for table in (old, new))
    return [compare_numbers("target length", *lengths)]


def compare_patterns(old: pa.Table, new: pa.Table) -> list[Comparison]:
    """Compare which modalities rows hold."""
    return [compare_shares("modalities that rows hold", count_patterns(old), count_patterns(new))]


def compare_measures(old: pa.Table, new: pa.Table) -> list[Comparison]:
    """Compare what is measured of rows, by samples of at most SAMPLE rows of each version."""
    found = []
    for what, column in NUMBERS.items():
        values = [_sample(table, column) for table in (old, new)]
        if any(len(one) for one in values):
            found.append(compare_numbers(what, *values))
    return found


def _sample(table: pa.Table, column: str) -> NDArray[np.float64]:
    there = table[column].is_valid().to_numpy()
    cells = table[column].take(pa.array(np.flatnonzero(there)[_lot(table, there)[:SAMPLE]]))
    return cells.to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _lot(table: pa.Table, wanted: Bools) -> Ints:
    """Order the wanted rows by digest, as if drawn by lot, but always the same; numbers among the wanted."""
    order = pc.sort_indices(table["digest"].filter(pa.array(wanted))).to_numpy()
    return order.astype(np.int64)  # type: ignore[no-any-return]


def compare_shares(what: str, before: Mapping[str, int], after: Mapping[str, int]) -> Comparison:
    """Compare counts by their total variation distance and Pearson's chi-squared test."""
    names = sorted(before.keys() | after.keys())
    counts = np.array([[one.get(name, 0) for name in names] for one in (before, after)], float)
    totals = counts.sum(1, keepdims=True) if len(names) else np.zeros((2, 1))
    distance, p = 0.0, None
    if totals.all():
        distance = total_variation(before, after)
        seen = counts[:, counts.sum(0) > 0]
        p = float(chi2_contingency(seen, correction=False).pvalue) if seen.shape[1] > 1 else 1.0
    return Comparison(what=what, kind="chi-squared", before=int(totals[0, 0]), after=int(totals[1, 0]),
                distance=distance, p=p)  # fmt: skip


def compare_numbers(what: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> Comparison:
    """Compare samples by the two-sample Kolmogorov-Smirnov test; its statistic is the distance."""
    distance, p = 0.0, None
    if len(before) and len(after):
        result = ks_2samp(before, after, method="asymp")
        distance, p = float(result.statistic), float(result.pvalue)
    return Comparison(
        what=what, kind="Kolmogorov-Smirnov", before=len(before), after=len(after), distance=distance, p=p
    )
