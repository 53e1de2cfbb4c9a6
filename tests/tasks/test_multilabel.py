"""Any number of labels: metrics against scikit-learn, thresholds, answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from fuseline.records import Decoding
from fuseline.tasks.base import Truth
from fuseline.tasks.multilabel import MultiLabel, average_precision
from fuseline.training.thresholds import best_threshold, fit_thresholds

LABELS = ["blue", "green", "red"]


def draw(seed: int, rows: int = 40) -> tuple[Any, Any]:
    """Draw scores [N, L], some of them alike, and what is true."""
    chance = np.random.default_rng(seed)
    true_NL = chance.integers(0, 2, (rows, 3))
    return np.round(np.clip(0.5 * true_NL + 0.6 * chance.random((rows, 3)), 0.01, 0.99), 1), true_NL


def units(yes_NL: Any) -> Any:
    """Make no and yes of each label a unit."""
    return np.stack([1 - yes_NL.ravel(), yes_NL.ravel()], axis=1)


def truth_of(true_NL: Any) -> Truth:
    return MultiLabel(LABELS).assume_truth(true_NL.tolist())


@given(st.integers(0, 10_000))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    yes_NL, true_NL = draw(seed)
    cuts = [0.5, 0.3, 0.7]
    task = MultiLabel(LABELS).decided(Decoding(thresholds=cuts))
    found, guess_NL = task.score(units(yes_NL), truth_of(true_NL)), (yes_NL >= cuts).astype(int)
    expected = {
        "f1": reference.f1_score(true_NL, guess_NL, average="micro"),
        "precision": reference.precision_score(true_NL, guess_NL, average="micro"),
        "recall": reference.recall_score(true_NL, guess_NL, average="micro"),
        "macro_f1": reference.f1_score(true_NL, guess_NL, average="macro"),
        "accuracy": reference.accuracy_score(true_NL, guess_NL),
        "map": reference.average_precision_score(true_NL, yes_NL, average="macro"),
        "nll": reference.log_loss(true_NL.ravel(), yes_NL.ravel()),
        "brier": 2 * reference.brier_score_loss(true_NL.ravel(), yes_NL.ravel()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert set(found) - set(expected) == {"ece"}
    table, averages = task.table(units(yes_NL), truth_of(true_NL))
    lines = reference.classification_report(true_NL, guess_NL, target_names=LABELS, output_dict=True, zero_division=0)
    for row in table:
        assert row.f1 == pytest.approx(lines[row.label]["f1-score"], abs=1e-9)
    for row in averages:
        line = lines[f"{row.label} avg"]
        said = (row.precision, row.recall, row.f1, row.support)
        assert said == pytest.approx((line["precision"], line["recall"], line["f1-score"], line["support"]), abs=1e-9)


@pytest.mark.parametrize("values", [5, 1000], ids=["many rows of one score", "all scores differ"])
def test_the_influence_of_a_row_is_how_average_precision_moves_with_its_weight(values: int) -> None:
    random = np.random.default_rng(0)
    scores, true = random.integers(values, size=40) / values, random.integers(2, size=40)
    value, influence = average_precision(scores, true)
    assert value == pytest.approx(reference.average_precision_score(true, scores), abs=1e-9)
    for row in range(40):
        more, less = (1 + step * np.eye(40)[row] for step in (1e-5, -1e-5))
        moved = [reference.average_precision_score(true, scores, sample_weight=weights) for weights in (more, less)]
        assert influence[row] == pytest.approx((moved[0] - moved[1]) / 2e-5, abs=1e-7)
    assert influence.sum() == pytest.approx(0, abs=1e-12)


def test_a_label_that_no_row_has_is_left_out_of_the_mean() -> None:
    yes_NL, true_NL = draw(2)
    true_NL[:, 2] = 0
    expected = reference.average_precision_score(true_NL[:, :2], yes_NL[:, :2], average="macro")
    assert MultiLabel(LABELS).score(units(yes_NL), truth_of(true_NL))["map"] == pytest.approx(expected)


def test_confusion_sets_missed_labels_against_wrong_ones() -> None:
    true_NL = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]])
    guess_NL = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]])
    names, counts = MultiLabel(LABELS).confusion(units(0.9 * guess_NL + 0.05), truth_of(true_NL))
    assert names == [*LABELS, "no label"]
    assert counts == [[2, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_targets_become_a_yes_or_no_for_each_label_and_answers_name_those_with_yes() -> None:
    task = MultiLabel(LABELS, [0.5, 0.9, 0.2])
    assert task.number('["red", "blue"]', None) == [1, 0, 1]
    assert task.number("[]", "a text") == [0, 0, 0]
    assert task.answer(None, units(np.array([0.6, 0.8, 0.7]))) == {
        "labels": ["red", "blue"], "probabilities": {"blue": 0.6, "green": 0.8, "red": 0.7},
    }  # fmt: skip


@given(st.integers(0, 10_000))
def test_no_threshold_has_a_better_f1_than_the_best(seed: int) -> None:
    yes_NL, true_NL = draw(seed, 12)
    yes, true = yes_NL[:, 0], true_NL[:, 0]

    def f1(cut: float) -> float:
        return float(reference.f1_score(true, yes >= cut, zero_division=0))

    found = best_threshold(yes, true)
    assert f1(found) == pytest.approx(max(f1(cut) for cut in [0.0, *(yes - 1e-9), 1.0]))


def test_thresholds_shrink_to_the_common_one_by_how_few_rows_have_the_label() -> None:
    chance = np.random.default_rng(0)
    true_NL = (chance.random((400, 3)) < [0.5, 0.2, 0.02]).astype(int)
    yes_NL = np.clip((true_NL + chance.normal(0, 0.3, true_NL.shape)) * [0.9, 0.4, 0.2], 0, 1)
    own, shrunk, one = (np.array(fit_thresholds(yes_NL, true_NL, shrink)) for shrink in (0.0, 20.0, 1e12))
    common = best_threshold(yes_NL.ravel(), true_NL.ravel())
    assert one == pytest.approx([common] * 3)
    moved = (shrunk - own) / (common - own)
    assert (np.diff(moved) > 0).all()
    assert moved == pytest.approx(20 / (true_NL.sum(0) + 20))


def test_a_label_without_rows_takes_the_common_threshold() -> None:
    yes_NL, true_NL = draw(3)
    true_NL[:, 1] = 0
    assert fit_thresholds(yes_NL, true_NL, 0.0)[1] == best_threshold(yes_NL.ravel(), true_NL.ravel())
    assert best_threshold(yes_NL[:, 1], true_NL[:, 1]) == 0.5
