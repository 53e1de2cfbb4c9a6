"""What fine-tuning changed is told for each class and slice as scikit-learn counts it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fuseline.evaluation.metrics import Scored
from fuseline.evaluation.tuning import find_changes
from fuseline.tasks.classification import Classification

LABELS = ["a", "b", "c"]


def test_each_class_and_slice_is_measured_before_and_after() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=60)
    before, after = random.dirichlet(np.ones(3), 60), random.dirichlet(np.ones(3), 60) + np.eye(3)[labels] * 0.5
    task = Classification(LABELS)
    truth = task.find_truth(labels.tolist(), [LABELS[label] for label in labels], [None] * 60)
    short = np.arange(60) < 20
    cuts = {"length": {"short": short, "long": ~short, "none": np.zeros(60, bool)}}
    found = find_changes(*(Scored.of(task, probs, truth) for probs in (before, after / 1.5)), cuts)
    for number, label in enumerate(LABELS):
        change = found.classes[label]
        assert change.rows == (labels == number).sum()
        for value, probs in ((change.before, before), (change.after, after)):
            assert value == pytest.approx(f1_score(labels, probs.argmax(1), average=None)[number], abs=1e-9)
    assert list(found.slices["length"]) == ["short", "long"]
    change = found.slices["length"]["short"]
    assert change.rows == 20
    for value, probs in ((change.before, before), (change.after, after)):
        assert value == pytest.approx(accuracy_score(labels[short], probs[short].argmax(1)), abs=1e-9)
