"""A row has any number of labels: each is answered yes or no by itself.

Shape letters: N rows, L labels, U units (labels of rows, row after row), C classes (no, yes), R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fuseline.records import Decoding
from fuseline.tasks.base import (
    Floats,
    Ints,
    Mask,
    Ranked,
    Task,
    Truth,
    by_name,
    macro_f1,
    probability_metrics,
    probability_summands,
    share,
)

CLASSES = ["no", "yes"]
NO_LABEL = "no label"
HALF = 0.5


class MultiLabel(Task):
    """Several labels, or one, or none.

    Args:
        thresholds: for each label the probability from which a row has it; None takes one half.
    """

    kind = "multilabel"
    headline = "map"
    unit = "label"

    def __init__(self, labels: Sequence[str], thresholds: Sequence[float] | None = None) -> None:
        super().__init__(labels)
        self.thresholds = list(thresholds or [HALF] * len(labels))

    def decided(self, decoding: Decoding) -> Self:
        return type(self)(self.labels, decoding.thresholds)

    def adopt(self, theirs: Self, probs_UC: Floats) -> tuple[Self, Floats]:
        cuts = dict(zip(theirs.labels, theirs.thresholds, strict=True))
        found = type(self)(self.labels, [cuts.get(label, HALF) for label in self.labels])
        probs_CNL = np.moveaxis(probs_UC.reshape(-1, len(theirs.labels), 2), 2, 0)
        no_NL, yes_NL = (by_name(probs_NL, theirs.labels, self.labels) for probs_NL in probs_CNL)
        no_NL[:, [label not in theirs.labels for label in self.labels]] = 1
        return found, np.stack([no_NL, yes_NL], axis=2).reshape(-1, 2)

    @property
    def classes(self) -> list[str]:
        return CLASSES

    @property
    def weighed(self) -> list[str]:
        return self.labels

    def number(self, target: str, text: str | None) -> list[int]:
        given = set(json.loads(target))
        return [int(label in given) for label in self.labels]

    def find_truth(self, labels: Sequence[Any], targets: Sequence[str], texts: Sequence[str | None]) -> Truth:
        return self.assume_truth(labels)

    def assume_truth(self, labels: Sequence[Any]) -> Truth:
        counts_N = np.full(len(labels), len(self.labels), dtype=np.int64)
        return Truth(np.asarray(labels, dtype=np.int64).reshape(-1), counts_N)

    def find(self, probs_UC: Floats) -> Mask:
        """Return which labels rows have, bool [N, L]."""
        found: Mask = self._yes(probs_UC) >= np.array(self.thresholds)
        return found

    def decide(self, probs_UC: Floats) -> Ints:
        return self.find(probs_UC).ravel().astype(np.int64)

    def labels_in(self, target: str) -> list[str]:
        """Name a row's labels, NO_LABEL for none."""
        return json.loads(target) or [NO_LABEL]

    def name_unit(self, place: int, truth: Truth, row: int, text: str | None) -> str:
        """Name the label."""
        return self.labels[place]

    def _yes(self, probs_UC: Floats) -> Floats:
        return probs_UC[:, 1].reshape(-1, len(self.labels))

    def _true(self, truth: Truth) -> Ints:
        return truth.labels_U.reshape(-1, len(self.labels))

    def summands(self, probs_UC: Floats, truth: Truth) -> dict[str, Floats]:
        true_NL, found_NL = self._true(truth).astype(float), self.find(probs_UC).astype(float)
        units = probability_summands(probs_UC, truth.labels_U)
        by_row = {name: values.reshape(*true_NL.shape, *values.shape[1:]).sum(1) for name, values in units.items()}
        return by_row | {
            "rows": np.ones(len(true_NL)), "exact": (true_NL == found_NL).all(1).astype(float),
            "support": true_NL, "guesses": found_NL, "found": true_NL * found_NL,
        }  # fmt: skip

    def metrics(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return f1, precision, recall, macro_f1 and accuracy of the labels given, nll, brier and ece of yes and no.

        f1, precision and recall are over all labels of all rows, macro_f1 is the mean over labels that occur or are
        predicted. accuracy is the share of rows with all labels right, and none too many (subset accuracy).
        """
        found_R, support_R, guesses_R = (sums[name].sum(1) for name in ("found", "support", "guesses"))
        return {
            "f1": share(2 * found_R, support_R + guesses_R),
            "precision": share(found_R, guesses_R),
            "recall": share(found_R, support_R),
            "macro_f1": macro_f1(sums),
            "accuracy": sums["exact"] / sums["rows"],
        } | probability_metrics(sums, sums["rows"] * len(self.labels))

    def ranked(self, probs_UC: Floats, truth: Truth) -> Ranked:
        """Return map: average precision, the mean over labels that occur. It knows of no thresholds."""
        yes_NL, true_NL = self._yes(probs_UC), self._true(truth)
        occurring = np.flatnonzero(true_NL.any(0))
        if not len(occurring):
            return {"map": (0.0, np.zeros(len(true_NL)))}
        found = [average_precision(yes_NL[:, label], true_NL[:, label]) for label in occurring]
        values, influences = zip(*found, strict=True)
        return {"map": (float(np.mean(values)), np.mean(influences, axis=0))}

    def confusion(self, probs_UC: Floats, truth: Truth) -> tuple[list[str], list[list[int]]]:
        """Count labels: on the diagonal the found ones, elsewhere each that was missed against each that was wrong.

        Where a row has but missed ones, or wrong ones, they stand against no label.
        Source: after Heydarian et al. 2022, MLCM; a wrong label counts against the missed ones only.
        """
        size = len(self.labels)
        counts = np.zeros((size + 1, size + 1), dtype=np.int64)
        for true_L, found_L in zip(self._true(truth).astype(bool), self.find(probs_UC), strict=True):
            both = np.flatnonzero(true_L & found_L)
            counts[both, both] += 1
            missed, wrong = np.flatnonzero(true_L & ~found_L), np.flatnonzero(found_L & ~true_L)
            if len(missed) or len(wrong):
                none = np.array([size])
                counts[np.ix_(missed if len(missed) else none, wrong if len(wrong) else none)] += 1
        return [*self.labels, NO_LABEL], counts.tolist()

    def answer(self, text: str | None, probs: Floats) -> dict[str, Any]:
        """Return the labels, the likeliest first, and the probability of each label that there is."""
        yes_L = self._yes(probs)[0]
        named = {label: round(float(p), 6) for label, p in zip(self.labels, yes_L, strict=True)}
        given = [label for label, has in zip(self.labels, self.find(probs)[0], strict=True) if has]
        return {"labels": sorted(given, key=lambda label: -named[label]), "probabilities": named}


def average_precision(scores_N: Floats, true_N: Ints) -> tuple[float, Floats]:
    """Return the mean of precision over the recall that each score adds, and its influence; some row must be true.

    Rows of one score count together. The influence [N] is the derivative by how much each row counts: it sums to 0, and
    makes of a ranking what is nearly a sum over rows (Efron 1982, chapter 6, the infinitesimal jackknife).
    """
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N, right_N = scores_N[order_N], true_N[order_N].astype(float)
    ends_E = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    end_N = np.repeat(np.arange(len(ends_E)), np.diff(ends_E, prepend=-1))
    all_E, right_E = ends_E + 1, right_N.cumsum()[ends_E]
    total, precision_E = right_E[-1], right_E / all_E
    gained_E = np.diff(right_E, prepend=0) / total
    value = float(gained_E @ precision_E)
    found_E, lost_E = _from_here_on(gained_E / all_E), _from_here_on(gained_E * precision_E / all_E)
    influence_N = np.empty(len(scores_N))
    influence_N[order_N] = right_N * ((precision_E[end_N] - value) / total + found_E[end_N]) - lost_E[end_N]
    return value, influence_N


def _from_here_on(values: Floats) -> Floats:
    """Sum each value and those after it."""
    sums: Floats = values[::-1].cumsum()[::-1]
    return sums
