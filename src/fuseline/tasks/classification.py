"""A row is of one class.

Shape letters: N rows, which are the units, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.tasks.base import Floats, Task, Truth, macro_f1, probability_metrics, probability_summands


class Classification(Task):
    """One label of several."""

    kind = "classification"
    headline = "accuracy"

    def number(self, target: str, text: str | None) -> int | None:
        return self.labels.index(target) if target in self.labels else None

    def find_truth(self, labels: Sequence[Any], targets: Sequence[str], texts: Sequence[str | None]) -> Truth:
        return self.assume_truth(labels)

    def assume_truth(self, labels: Sequence[Any]) -> Truth:
        return Truth(np.asarray(labels, dtype=np.int64), np.ones(len(labels), dtype=np.int64))

    def summands(self, probs_UC: Floats, truth: Truth) -> dict[str, Floats]:
        rows, classes = probs_UC.shape
        common = probability_summands(probs_UC, truth.labels_U)
        true_NC, predicted_NC = np.eye(classes)[truth.labels_U], np.eye(classes)[probs_UC.argmax(1)]
        return common | {
            "rows": np.ones(rows), "support": true_NC, "guesses": predicted_NC,
            "found": true_NC * common["hits"][:, None],
        }  # fmt: skip

    def metrics(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return accuracy, macro_f1, nll, brier and ece; macro_f1 is over classes that occur or are predicted."""
        found = {"accuracy": sums["hits"] / sums["rows"], "macro_f1": macro_f1(sums)}
        return found | probability_metrics(sums, sums["rows"])

    def confusion(self, probs_UC: Floats, truth: Truth) -> tuple[list[str], list[list[int]]]:
        counts_CC = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(counts_CC, (truth.labels_U, probs_UC.argmax(1)), 1)
        return self.labels, counts_CC.tolist()

    def answer(self, text: str | None, probs: Floats) -> dict[str, Any]:
        """Return label, probability and all probabilities."""
        best = int(probs.argmax())
        named = {label: round(float(p), 6) for label, p in zip(self.labels, probs, strict=True)}
        return {"label": self.labels[best], "probability": named[self.labels[best]], "probabilities": named}
