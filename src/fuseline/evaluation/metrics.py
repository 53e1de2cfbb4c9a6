"""Classification metrics and their bootstrap intervals.

Every metric is a function of sums over rows, so that one matrix of resampling counts gives all metrics of
all systems on the same resamples: differences between systems are paired without further ado.

Whole groups are drawn, not rows (cluster bootstrap, Davison and Hinkley 1997, section 3.8): rows of one group
resemble each other, which is why no group straddles a split, and drawn singly they would pass for more evidence
than they are. With one group the interval is a point.
Shape letters: N rows, G groups, C classes, R resamples, K calibration bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from fuseline.records import ClassRow, Estimate, Evaluation, Metrics

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Groups = NDArray[Any]
"""Any hashable names: rows of one group are drawn together."""

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
BINS = 15
_CHUNK = 20_000_000
"""Entries of the resampling matrix that are held at once."""


def score(probs_NC: Floats, labels_N: Ints) -> dict[str, float]:
    """Return accuracy, macro_f1, nll, brier and ece; macro_f1 is over classes that occur or are predicted."""
    sums = {name: rows.sum(0, keepdims=True) for name, rows in _summands(probs_NC, labels_N).items()}
    return {name: float(values[0]) for name, values in _from_sums(sums).items()}


def _summands(probs_NC: Floats, labels_N: Ints) -> dict[str, Floats]:
    """Return, row by row, what the metrics are made of by summing: [N] or [N, classes or bins] each."""
    rows, classes = probs_NC.shape
    predicted_N = probs_NC.argmax(1)
    hit_N = (predicted_N == labels_N).astype(float)
    true_NC, predicted_NC = np.eye(classes)[labels_N], np.eye(classes)[predicted_N]
    own_N = np.clip(probs_NC[np.arange(rows), labels_N], 1e-12, 1)
    return {
        "rows": np.ones(rows),
        "hits": hit_N,
        "nll": -np.log(own_N),
        "brier": ((probs_NC - true_NC) ** 2).sum(1),
        "support": true_NC,
        "guesses": predicted_NC,
        "found": true_NC * hit_N[:, None],
        "gaps": _calibration_gaps(probs_NC.max(1), hit_N),
    }


def _calibration_gaps(confidence_N: Floats, hit_N: Floats) -> Floats:
    """Return hit - confidence in the row's bin of equal width, zero in the others [N, K]."""
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    gaps_NK: Floats = np.eye(BINS)[bin_N] * (hit_N - confidence_N)[:, None]
    return gaps_NK


def _from_sums(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Turn sums over the rows of each resample into metrics [R]; ece is eq. 3 of Guo et al. 2017."""
    rows_R, total_RC = sums["rows"], sums["support"] + sums["guesses"]
    f1_RC = np.divide(2 * sums["found"], total_RC, out=np.zeros_like(total_RC), where=total_RC > 0)
    return {
        "accuracy": sums["hits"] / rows_R,
        "macro_f1": f1_RC.sum(1) / (total_RC > 0).sum(1),
        "nll": sums["nll"] / rows_R,
        "brier": sums["brier"] / rows_R,
        "ece": np.abs(sums["gaps"]).sum(1) / rows_R,
    }


def resample(probs_NC: Floats, labels_N: Ints, groups_N: Groups, resamples: int, seed: int = 0) -> dict[str, Floats]:
    """Score bootstrap resamples [R]; the same seed and groups draw the same rows for every system."""
    sums = {name: _sum_by_group(rows, groups_N) for name, rows in _summands(probs_NC, labels_N).items()}
    parts = [
        _from_sums({name: counts_RG @ column for name, column in sums.items()})
        for counts_RG in _counts(len(sums["rows"]), resamples, seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sum_by_group(rows: Floats, groups_N: Groups) -> Floats:
    """Sum rows [N] or [N, any] to [G] or [G, any], groups sorted."""
    order_N = np.argsort(groups_N, kind="stable")
    _, starts_G = np.unique(groups_N[order_N], return_index=True)
    sums: Floats = np.add.reduceat(rows[order_N], starts_G, axis=0)
    return sums


def _counts(groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each resample drew each group [R, G], a share of the resamples at a time."""
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // groups)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(groups, size=(size, groups))
        flat = np.bincount((drawn + groups * np.arange(size)[:, None]).ravel(), minlength=size * groups)
        yield flat.reshape(size, groups).astype(float)


def estimate(probs_NC: Floats, labels_N: Ints, groups_N: Groups, resamples: int, confidence: float) -> Metrics:
    """Return each metric with its percentile bootstrap interval."""
    values = score(probs_NC, labels_N)
    draws = resample(probs_NC, labels_N, groups_N, resamples)
    return {name: _interval(value, draws[name], confidence) for name, value in values.items()}


def estimate_gain(
    after_NC: Floats, before_NC: Floats, labels_N: Ints, groups_N: Groups, resamples: int, confidence: float
) -> Metrics:
    """Return by how much `after` is better than `before`, paired; positive is better for every metric."""
    after, before = score(after_NC, labels_N), score(before_NC, labels_N)
    draws_after, draws_before = (resample(probs, labels_N, groups_N, resamples) for probs in (after_NC, before_NC))
    gains = {}
    for name in after:
        sign = -1 if name in LOWER_IS_BETTER else 1
        draws_R = sign * (draws_after[name] - draws_before[name])
        gains[name] = _interval(sign * (after[name] - before[name]), draws_R, confidence)
    return gains


def _interval(value: float, draws_R: Floats, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_R, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def best_of(systems: Mapping[str, Metrics]) -> str:
    """Return the name of the most accurate system; of equals, the first by name."""
    return max(sorted(systems), key=lambda name: systems[name]["accuracy"].value)


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Reduce an evaluation to the few plain numbers that `dvc metrics show` has room for.

    `best_single` and `member_NAME` are accuracies; no member's name holds an underscore, so none hides another key.
    """
    members = {name: metrics["accuracy"].value for name, metrics in evaluation.members.items()}
    return {
        **{name: estimate.value for name, estimate in evaluation.ensemble.items()},
        "fusion_gain": evaluation.fusion_gain["accuracy"].value,
        "best_single": members[evaluation.best_single],
        **{f"member_{name}": accuracy for name, accuracy in members.items()},
    }


def disagreement(members: Mapping[str, Floats], seen: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    """Return for each pair of members the share of rows on which they name different labels.

    Args:
        members: probabilities [N, C] by member.
        seen: by member, the rows on which it sees something; pairs with no such row in common are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for (one, first_NC), (other, second_NC) in permutations(members.items(), 2):
        both = seen[one] & seen[other]
        if both.any():
            differs = first_NC[both].argmax(1) != second_NC[both].argmax(1)
            found.setdefault(one, {})[other] = float(differs.mean())
    return found


def per_class(probs_NC: Floats, labels_N: Ints, labels: list[str]) -> list[ClassRow]:
    """Return precision, recall, F1 and support of each class."""
    columns = precision_recall_fscore_support(labels_N, probs_NC.argmax(1), labels=range(len(labels)), zero_division=0)
    return [
        ClassRow(label=label, precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]


def confusion(probs_NC: Floats, labels_N: Ints) -> list[list[int]]:
    """Count true (rows) against predicted (columns) classes."""
    table: list[list[int]] = confusion_matrix(labels_N, probs_NC.argmax(1), labels=range(probs_NC.shape[1])).tolist()
    return table
