"""What a problem is to the line, from a row's target to metrics and answers.

What is scored is a *unit*: the row itself in classification, a word of its text in NER, each of the labels where a row
may have several. Members score units, so their training, weights, temperature and pools know none of this.
Shape letters: N rows, U units, C classes, R resamples, K calibration bins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fuseline.records import ClassRow, Decoding

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Mask = NDArray[np.bool_]
Span = tuple[int, int, str]
"""Where something begins in a text, where it has ended, in characters, and what it is."""
Unit = Literal["row", "word", "label"]
"""What is scored."""
Ranked = dict[str, tuple[float, Floats]]
"""Metrics on the order of scores: each with its influence [N], by how much it moves if a row counts for more."""
BINS = 15


@dataclass(frozen=True)
class Truth:
    """What is true of rows."""

    labels_U: Ints
    """The class of each unit, row after row."""
    counts_N: Ints
    """Units of each row."""
    bounds: list[list[tuple[int, int]]] = field(default_factory=list)
    """Where each row's words stand in its text; of a task that scores words."""
    spans: list[list[Span]] = field(default_factory=list)
    """Each row's entities, as they were given; of a task that scores words."""

    def units(self, rows_N: Mask) -> Mask:
        """Return which units belong to the chosen rows."""
        return np.repeat(rows_N, self.counts_N)

    def take(self, rows_N: Mask) -> Truth:
        """Keep the chosen rows."""
        chosen = np.flatnonzero(rows_N)
        return replace(
            self, labels_U=self.labels_U[self.units(rows_N)], counts_N=self.counts_N[rows_N],
            bounds=[self.bounds[row] for row in chosen] if self.bounds else [],
            spans=[self.spans[row] for row in chosen] if self.spans else [],
        )  # fmt: skip

    def places(self, units: Ints) -> tuple[Ints, Ints]:
        """Return the row of each of some units, and the unit's number within it."""
        ends_N = np.cumsum(self.counts_N)
        rows = np.searchsorted(ends_N, units, side="right")
        return rows, units - (ends_N - self.counts_N)[rows]

    def by_row(self, values_U: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut an array over units into one for each row."""
        return np.split(values_U, np.cumsum(self.counts_N)[:-1])


class Task(ABC):
    """One kind of problem.

    Args:
        labels: as params.yaml lists them.
    """

    kind: ClassVar[str]
    headline: ClassVar[str]
    """The metric that systems are compared by; higher is better."""
    unit: ClassVar[Unit] = "row"
    """Where a unit is no row, rows have several, as many as they have words, or the problem labels."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Modalities that a row must have to be answered, and each member must use."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @property
    def words(self) -> bool:
        """Whether the units are words."""
        return self.unit == "word"

    def decided(self, decoding: Decoding) -> Self:
        """Return the problem as a system answers it that has learned how to."""
        return self

    def adopt(self, theirs: Self, probs_UC: Floats) -> tuple[Self, Floats]:
        """Put the answers of a system with other labels, or another order of them, in our terms.

        Args:
            theirs: the problem as it answers it.

        Returns:
            The same in our terms, and the probabilities; a class that it does not know has none.
        """
        return self, by_name(probs_UC, theirs.classes, self.classes)

    @property
    def classes(self) -> list[str]:
        """Name the classes of a unit, in the order of the members' outputs."""
        return self.labels

    @property
    def weighed(self) -> list[str]:
        """Name, for each class, the key of params.yaml's `class_weights` that it goes by."""
        return self.classes

    def wanted(self, modalities: Sequence[str]) -> list[str]:
        """Return the modalities of which a row must have one to be answered by a member on `modalities`."""
        return list(self.needs or modalities)

    @abstractmethod
    def number(self, target: str, text: str | None) -> int | list[int] | None:
        """Return the class of a row, or of each of its words; None where the target is of no class."""

    @abstractmethod
    def find_truth(self, labels: Sequence[Any], targets: Sequence[str], texts: Sequence[str | None]) -> Truth:
        """Say what is true of rows.

        Args:
            labels: what `number` gave for each.
        """

    @abstractmethod
    def assume_truth(self, labels: Sequence[Any]) -> Truth:
        """Say what is true of rows of which nothing is known but what `number` gave; enough for `headline`."""

    def decide(self, probs_UC: Floats) -> Ints:
        """Return the class that each unit is answered by, taken by itself."""
        found: Ints = probs_UC.argmax(1)
        return found

    def answers(self, probs_UC: Floats, truth: Truth) -> Ints:
        """Return the class that each unit is answered by, in the sequence that it is part of."""
        return self.decide(probs_UC)

    def labels_in(self, target: str) -> list[str]:
        """Name the labels that a row's target has."""
        return [target]

    def name_unit(self, place: int, truth: Truth, row: int, text: str | None) -> str | None:
        """Name a row's unit; None where it is the row.

        Args:
            place: which of the row's units.
        """
        return None

    @abstractmethod
    def summands(self, probs_UC: Floats, truth: Truth) -> dict[str, Floats]:
        """Return, row by row, what the metrics are made of by summing: [N] or [N, any] each."""

    @abstractmethod
    def metrics(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Turn the sums over the rows of each resample, [R] or [R, any], into metrics [R]."""

    def ranked(self, probs_UC: Floats, truth: Truth) -> Ranked:
        """Return the metrics that no sums over rows make up, those on the order of scores."""
        return {}

    def score(self, probs_UC: Floats, truth: Truth) -> dict[str, float]:
        """Return all metrics over all rows."""
        sums = {name: rows.sum(0, keepdims=True) for name, rows in self.summands(probs_UC, truth).items()}
        found = {name: float(values[0]) for name, values in self.metrics(sums).items()}
        return found | {name: value for name, (value, _) in self.ranked(probs_UC, truth).items()}

    @abstractmethod
    def confusion(self, probs_UC: Floats, truth: Truth) -> tuple[list[str], list[list[int]]]:
        """Count true (rows) against predicted (columns) units, and name both."""

    @abstractmethod
    def answer(self, text: str | None, probs: Floats) -> dict[str, Any]:
        """Put what the bundle answers to one row, [C] or of each of its words [W, C], into words, as JSON."""

    @staticmethod
    def name(answer: Mapping[str, Any]) -> Any:
        """Return what of an `answer` is named, without numbers about it: its label, labels or entities."""
        return next(answer[key] for key in ("label", "labels", "entities") if key in answer)

    def table(self, probs_UC: Floats, truth: Truth) -> tuple[list[ClassRow], list[ClassRow]]:
        """Return precision, recall, F1 and support of each label, then their micro, macro and weighted averages."""
        sums = {name: rows.sum(0) for name, rows in self.summands(probs_UC, truth).items()}
        counts = [sums[name] for name in ("support", "guesses", "found")]
        rows = [_row(label, *of_label) for label, *of_label in zip(self.labels, *counts, strict=True)]
        return rows, [_row("micro", *(count_L.sum() for count_L in counts)), *_averages(rows)]


def by_name(values_UC: Floats, theirs: Sequence[str], ours: Sequence[str]) -> Floats:
    """Put columns in our order, zeros where they have none."""
    known = [number for number, name in enumerate(ours) if name in theirs]
    found: Floats = np.zeros((len(values_UC), len(ours)), values_UC.dtype)
    found[:, known] = values_UC[:, [theirs.index(ours[number]) for number in known]]
    return found


def _row(label: str, support: float, guesses: float, found: float) -> ClassRow:
    def part(of: float, whole: float) -> float:
        return float(of / whole) if whole else 0.0

    return ClassRow(
        label=label, precision=part(found, guesses), recall=part(found, support),
        f1=part(2 * found, support + guesses), support=int(support),
    )  # fmt: skip


def _averages(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Average over labels, each counting alike or by its support."""
    support_L = np.array([row.support for row in rows])
    values_L3 = np.array([[row.precision, row.recall, row.f1] for row in rows])
    shares = {
        "macro": np.full(len(rows), 1 / len(rows)),
        "weighted": share(support_L, np.full(len(rows), support_L.sum())),
    }
    found = []
    for name, share_L in shares.items():
        precision, recall, f1 = (float(value) for value in share_L @ values_L3)
        found.append(ClassRow(label=name, precision=precision, recall=recall, f1=f1, support=int(support_L.sum())))
    return found


def share(part: Floats, whole: Floats) -> Floats:
    """Divide; nothing of nothing is 0."""
    shares: Floats = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
    return shares


def probability_summands(probs_UC: Floats, labels_U: Ints) -> dict[str, Floats]:
    """Return, unit by unit, what accuracy, nll, brier and ece are made of: [U] or, the gaps, [U, K]."""
    units, classes = probs_UC.shape
    hit_U = (probs_UC.argmax(1) == labels_U).astype(float)
    own_U = np.clip(probs_UC[np.arange(units), labels_U], 1e-12, 1)
    return {
        "hits": hit_U,
        "nll": -np.log(own_U),
        "brier": ((probs_UC - np.eye(classes)[labels_U]) ** 2).sum(1),
        "gaps": _calibration_gaps(probs_UC.max(1), hit_U),
    }


def _calibration_gaps(confidence_U: Floats, hit_U: Floats) -> Floats:
    """Return hit - confidence in the unit's bin of equal width, zero in the others [U, K]."""
    gaps_UK: Floats = np.eye(BINS)[calibration_bins(confidence_U)] * (hit_U - confidence_U)[:, None]
    return gaps_UK


def calibration_bins(confidence_U: Floats) -> Ints:
    """Return the number of the bin of equal width that each confidence is in; its upper end is of the bin."""
    bin_U: Ints = np.clip(np.ceil(confidence_U * BINS).astype(int) - 1, 0, BINS - 1)
    return bin_U


def probability_metrics(sums: Mapping[str, Floats], units_R: Floats) -> dict[str, Floats]:
    """Turn sums into nll, brier and ece [R]; ece is eq. 3 of Guo et al. 2017."""
    return {
        "nll": sums["nll"] / units_R,
        "brier": sums["brier"] / units_R,
        "ece": np.abs(sums["gaps"]).sum(1) / units_R,
    }


def macro_f1(sums: Mapping[str, Floats]) -> Floats:
    """Average F1 over the labels that occur or are predicted, [R]."""
    total_RL = sums["support"] + sums["guesses"]
    counted_R = (total_RL > 0).sum(1)
    return share(share(2 * sums["found"], total_RL).sum(1), counted_R)
