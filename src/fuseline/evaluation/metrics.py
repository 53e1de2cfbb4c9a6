"""Classification metrics and their bootstrap intervals.

Every metric is a function of sums over rows, so that one matrix of resampling counts gives all metrics of
all systems on the same resamples: differences between systems are paired without further ado.
Shape letters: N rows, C classes, R resamples, K calibration bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from fuseline.records import ClassRow, Estimate, Metrics

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
BINS = 15
_CHUNK = 20_000_000
"""Entries of the resampling matrix that are held at once."""


def score(probs_NC: Floats, labels_N: Ints) -> dict[str, float]:
    """Return accuracy, macro_f1, nll, brier and ece; macro_f1 is over classes that occur or are predicted."""
    ones_1N = np.ones((1, len(labels_N)))
    return {name: float(values[0]) for name, values in _score_weighted(probs_NC, labels_N, ones_1N).items()}


def _score_weighted(probs_NC: Floats, labels_N: Ints, counts_RN: Floats) -> dict[str, Floats]:
    """Score every resample; `counts_RN` says how often each row was drawn."""
    rows, classes = probs_NC.shape
    predicted_N = probs_NC.argmax(1)
    hit_N = (predicted_N == labels_N).astype(float)
    true_NC, predicted_NC = np.eye(classes)[labels_N], np.eye(classes)[predicted_N]
    drawn_R = counts_RN.sum(1)
    support_RC, guesses_RC = counts_RN @ true_NC, counts_RN @ predicted_NC
    found_RC = counts_RN @ (true_NC * hit_N[:, None])
    total_RC = support_RC + guesses_RC
    f1_RC = np.divide(2 * found_RC, total_RC, out=np.zeros_like(total_RC), where=total_RC > 0)
    own_N = np.clip(probs_NC[np.arange(rows), labels_N], 1e-12, 1)
    return {
        "accuracy": counts_RN @ hit_N / drawn_R,
        "macro_f1": f1_RC.sum(1) / (total_RC > 0).sum(1),
        "nll": counts_RN @ -np.log(own_N) / drawn_R,
        "brier": counts_RN @ ((probs_NC - true_NC) ** 2).sum(1) / drawn_R,
        "ece": _calibration_error(probs_NC.max(1), hit_N, counts_RN) / drawn_R,
    }


def _calibration_error(confidence_N: Floats, hit_N: Floats, counts_RN: Floats) -> Floats:
    """Sum of |hits - confidence| over equal-width bins (Guo et al. 2017, eq. 3, times the rows)."""
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    gap_NK = np.eye(BINS)[bin_N] * (hit_N - confidence_N)[:, None]
    total: Floats = np.abs(counts_RN @ gap_NK).sum(1)
    return total


def resample(probs_NC: Floats, labels_N: Ints, resamples: int, seed: int = 0) -> dict[str, Floats]:
    """Score bootstrap resamples [R]; the same seed and N draw the same rows for every system."""
    parts = [_score_weighted(probs_NC, labels_N, counts) for counts in _counts(len(labels_N), resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // rows)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(rows, size=(size, rows))
        flat = np.bincount((drawn + rows * np.arange(size)[:, None]).ravel(), minlength=size * rows)
        yield flat.reshape(size, rows).astype(float)


def estimate(probs_NC: Floats, labels_N: Ints, resamples: int, confidence: float) -> Metrics:
    """Return each metric with its percentile bootstrap interval."""
    values = score(probs_NC, labels_N)
    draws = resample(probs_NC, labels_N, resamples)
    return {name: _interval(value, draws[name], confidence) for name, value in values.items()}


def estimate_gain(after_NC: Floats, before_NC: Floats, labels_N: Ints, resamples: int, confidence: float) -> Metrics:
    """Return by how much `after` is better than `before`, paired; positive is better for every metric."""
    after, before = score(after_NC, labels_N), score(before_NC, labels_N)
    draws_after, draws_before = (resample(probs, labels_N, resamples) for probs in (after_NC, before_NC))
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
