"""Metrics agree with scikit-learn's, and their intervals behave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from fuseline.evaluation import metrics
from fuseline.evaluation.metrics import Scored, best_of, disagreement, headline
from fuseline.records import Estimate, Evaluation, Metrics
from fuseline.tasks.base import Truth
from fuseline.tasks.classification import Classification

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
ALL = ("accuracy", "macro_f1", "nll", "brier", "ece")


def classify(probs: Floats) -> Classification:
    """Return the problem with as many classes as there are probabilities."""
    return Classification([f"class {number}" for number in range(probs.shape[1])])


def truth_of(labels: Ints) -> Truth:
    """Say what is true of rows of these classes."""
    return Classification([]).assume_truth(labels)


def score(probs: Floats, labels: Ints) -> dict[str, float]:
    """Score a classification."""
    return classify(probs).score(probs, truth_of(labels))


def scored(probs: Floats, labels: Ints) -> Scored:
    """Score a classification, row by row."""
    return Scored.of(classify(probs), probs, truth_of(labels))


def resample(probs: Floats, labels: Ints, groups: NDArray[Any], **options: Any) -> dict[str, Floats]:
    """Resample a classification."""
    return metrics.draw([scored(probs, labels)], groups, **options).draws[0]


def estimate(probs: Floats, labels: Ints, groups: NDArray[Any], **options: Any) -> Metrics:
    """Estimate how well a classification does."""
    return metrics.estimate(scored(probs, labels), groups, **options)


def estimate_gain(after: Floats, before: Floats, labels: Ints, groups: NDArray[Any], **options: Any) -> Metrics:
    """Estimate by how much one classification is better than another."""
    return metrics.estimate_gain(scored(after, labels), scored(before, labels), groups, **options)


def draw(rows: int = 200, classes: int = 4, seed: int = 0, skill: float = 1.5) -> tuple[Floats, Ints]:
    """Draw probabilities that point at the label more often than not."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows)
    logits = random.normal(size=(rows, classes)) + skill * np.eye(classes)[labels]
    exp = np.exp(logits)
    return exp / exp.sum(1, keepdims=True), labels


def draw_singly(**options: float) -> tuple[Floats, Ints, Ints]:
    """Draw as `draw` does, and make each row its own group."""
    probs, labels = draw(**options)
    return probs, labels, np.arange(len(labels))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("classes", [2, 5])
def test_scores_agree_with_scikit_learn(classes: int, seed: int) -> None:
    probs, labels = draw(classes=classes, seed=seed)
    found, guesses = score(probs, labels), probs.argmax(1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, guesses), abs=1e-9)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, guesses, average="macro"), abs=1e-9)
    assert found["nll"] == pytest.approx(reference.log_loss(labels, probs, labels=range(classes)), abs=1e-9)
    brier = sum(reference.brier_score_loss(labels == c, probs[:, c], pos_label=True) for c in range(classes))
    assert found["brier"] == pytest.approx(brier, abs=1e-9)


def test_macro_f1_leaves_out_a_class_that_neither_occurs_nor_is_predicted() -> None:
    probs, labels = draw(classes=3)
    wider = np.hstack([probs, np.zeros((len(labels), 1))])
    assert score(wider, labels)["macro_f1"] == pytest.approx(score(probs, labels)["macro_f1"], abs=1e-12)


def bins_by_hand(probs: Floats, labels: Ints) -> float:
    """Guo et al. 2017, eq. 3, bin by bin: ((k - 1) / 15, k / 15]."""
    confidence, hit, total = probs.max(1), probs.argmax(1) == labels, 0.0
    for k in range(1, 16):
        inside = (confidence > (k - 1) / 15) & (confidence <= k / 15)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_calibration_error_agrees_with_one_binned_by_hand(seed: int) -> None:
    probs, labels = draw(seed=seed)
    assert score(probs, labels)["ece"] == pytest.approx(bins_by_hand(probs, labels), abs=1e-9)


def test_confident_and_right_has_no_calibration_error_confident_and_wrong_has_all() -> None:
    probs = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert score(probs, np.array([0, 0]))["ece"] == 0.0
    assert score(probs, np.array([1, 1]))["ece"] == 1.0


def test_a_probability_of_zero_for_the_truth_gives_a_finite_loss() -> None:
    assert np.isfinite(score(np.array([[1.0, 0.0]]), np.array([1]))["nll"])


def test_intervals_hold_the_point() -> None:
    for name, one in estimate(*draw_singly(), resamples=300, confidence=0.95).items():
        if name != "ece":  # a mean of absolute values: resampling adds to it
            assert one.low <= one.value <= one.high


def test_intervals_shrink_with_the_rows() -> None:
    few, many = (estimate(*draw_singly(rows=rows), resamples=300, confidence=0.95) for rows in (100, 1600))
    for name in ("accuracy", "macro_f1", "nll", "brier"):
        ratio = (few[name].high - few[name].low) / (many[name].high - many[name].low)
        assert 2.5 < ratio < 6  # sqrt(16) = 4


def test_a_higher_confidence_gives_wider_intervals() -> None:
    narrow, wide = (
        estimate(*draw_singly(), resamples=300, confidence=confidence)["accuracy"] for confidence in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = score(*draw(rows=200_000, seed=99))["accuracy"]
    intervals = [
        estimate(*draw_singly(rows=150, seed=seed), resamples=200, confidence=0.9)["accuracy"] for seed in range(150)
    ]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.82 < covered < 0.97


def test_the_same_rows_give_the_same_intervals() -> None:
    assert estimate(*draw_singly(), resamples=50, confidence=0.9) == estimate(
        *draw_singly(), resamples=50, confidence=0.9
    )


def test_chunks_draw_as_many_resamples_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resample(*draw_singly(rows=40), resamples=25)
    monkeypatch.setattr(metrics, "_CHUNK", 40 * 7)
    chunked = resample(*draw_singly(rows=40), resamples=25)
    assert all(np.allclose(chunked[name], whole[name]) for name in ALL)


def in_fours(rows: int, seed: int = 0) -> tuple[Floats, Ints, NDArray[np.str_]]:
    """Draw rows that come in groups of four copies: a quarter of the evidence that they seem to be."""
    probs, labels = draw(rows=rows // 4, seed=seed)
    names = np.array([f"group {number}" for number in range(rows // 4)])
    return np.tile(probs, (4, 1)), np.tile(labels, 4), np.tile(names, 4)


def test_rows_that_come_in_groups_give_the_interval_of_that_many_groups() -> None:
    probs, labels, groups = in_fours(rows=800)
    grouped = estimate(probs, labels, groups, resamples=500, confidence=0.95)["accuracy"]
    alone = estimate(*draw_singly(rows=200), resamples=500, confidence=0.95)["accuracy"]
    singly = estimate(probs, labels, np.arange(800), resamples=500, confidence=0.95)["accuracy"]
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert 1.6 < (grouped.high - grouped.low) / (singly.high - singly.low) < 2.4  # sqrt(4) = 2


def test_intervals_of_grouped_rows_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = score(*draw(rows=200_000, seed=99))["accuracy"]
    intervals = [estimate(*in_fours(600, seed), resamples=200, confidence=0.9)["accuracy"] for seed in range(150)]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.82 < covered < 0.97


def test_a_resample_holds_whole_groups_of_any_size() -> None:
    groups = np.array(["b", "a", "b", "c", "c", "c"])
    right = np.array([1, 1, 1, 0, 0, 0])  # groups a and b are right throughout, c is wrong throughout
    accuracies = resample(np.eye(2)[right], np.ones(6, dtype=int), groups, resamples=400)["accuracy"]
    draws = [(a, b, 3 - a - b) for a in range(4) for b in range(4 - a)]
    possible = {round((a + 2 * b) / (a + 2 * b + 3 * c), 9) for a, b, c in draws}
    assert {round(value, 9) for value in accuracies} == possible


def test_many_groups_in_pools_have_the_standard_error_that_they_have_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = in_fours(rows=4000)
    singly = estimate(*rows, resamples=1000, confidence=0.95)
    monkeypatch.setattr(metrics, "POOLS", 500)
    pooled = estimate(*rows, resamples=1000, confidence=0.95)
    for name in ALL:
        assert pooled[name].value == pytest.approx(singly[name].value, abs=1e-12)
        assert pooled[name].groups == 1000
        assert pooled[name].standard_error == pytest.approx(singly[name].standard_error, rel=0.15)
        assert pooled[name].standard_error != singly[name].standard_error


def test_a_mean_over_labels_knows_how_many_groups_hold_the_rarest() -> None:
    labels, groups = np.array([0, 0, 0, 0, 1, 1, 1]), np.array(list("abcdaab"))
    found = estimate(np.eye(3)[labels], labels, groups, resamples=10, confidence=0.9)
    assert {name: one.rarest for name, one in found.items()} == {
        "accuracy": None, "macro_f1": 2, "nll": None, "brier": None, "ece": None,
    }  # fmt: skip


def test_the_order_of_the_rows_does_not_change_the_intervals() -> None:
    probs, labels, groups = in_fours(rows=200)
    order = np.random.default_rng(0).permutation(200)
    there = resample(probs, labels, groups, resamples=20)
    back = resample(probs[order], labels[order], groups[order], resamples=20)
    assert all(np.allclose(back[name], there[name]) for name in ALL)


def test_a_system_gains_exactly_nothing_over_itself() -> None:
    probs, *rows = draw_singly()
    for gain in estimate_gain(probs, probs.copy(), *rows, resamples=100, confidence=0.95).values():
        assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_the_better_system_gains_in_every_metric_that_it_is_better_in() -> None:
    probs, labels, groups = draw_singly(rows=400, skill=3.0)
    flat = np.full_like(probs, 0.25) + 0.01 * np.eye(4)[(labels + 1) % 4]
    gains = estimate_gain(probs, flat / flat.sum(1, keepdims=True), labels, groups, resamples=100, confidence=0.95)
    assert set(gains) == set(ALL)
    for name in ("accuracy", "macro_f1", "nll", "brier"):
        assert 0 < gains[name].low <= gains[name].value <= gains[name].high, name


def test_swapping_the_systems_changes_the_sign_only() -> None:
    (probs, *rows), (other, _) = draw_singly(), draw(seed=5)
    there = estimate_gain(probs, other, *rows, resamples=100, confidence=0.95)
    back = estimate_gain(other, probs, *rows, resamples=100, confidence=0.95)
    for name in ALL:
        assert (back[name].value, back[name].low) == pytest.approx((-there[name].value, -there[name].high))


def test_a_gain_is_paired_its_interval_is_narrower_than_that_of_either_system() -> None:
    probs, *rows = draw_singly()
    slightly = 0.98 * probs + 0.005
    gain = estimate_gain(slightly, probs, *rows, resamples=200, confidence=0.95)["nll"]
    alone = estimate(probs, *rows, resamples=200, confidence=0.95)["nll"]
    assert gain.high - gain.low < (alone.high - alone.low) / 10


@pytest.mark.parametrize("order", [["b", "a", "c"], ["a", "b", "c"]])
def test_the_best_of_equals_is_the_first_by_name_in_whichever_order_they_come(order: list[str]) -> None:
    accuracies = {"a": 0.7, "b": 0.7, "c": 0.6}
    systems = {name: {"accuracy": Estimate(value=accuracies[name], low=0, high=1)} for name in order}
    assert best_of(systems, "accuracy") == "a"


def test_the_headline_holds_plain_numbers_under_the_name_of_their_system(evaluation: Evaluation) -> None:
    accuracies = {"text": 0.6, "student": 0.7}
    members = {name: {"accuracy": Estimate(value=one, low=0, high=1)} for name, one in accuracies.items()}
    metrics = ["accuracy", "macro_f1", "nll", "brier", "ece"]
    alone = evaluation.model_copy(update={"members": members})
    expected = {
        "ensemble": dict.fromkeys(metrics, 0.5), "members": accuracies, "best_single": 0.6, "fusion_gain": 0.5,
    }  # fmt: skip
    assert headline(alone) == expected
    gain = {"accuracy": Estimate(value=-0.2, low=None, high=None)}
    student = {name: Estimate(value=0.3, low=None, high=None) for name in metrics}
    both = headline(alone.model_copy(update={"student": student, "student_gain": gain}))
    assert both == expected | {"student": dict.fromkeys(metrics, 0.3), "student_gain": -0.2}


def test_per_class_and_confusion_agree_with_hand_counting() -> None:
    probs = np.eye(3)[[0, 0, 1, 1]]
    labels = np.array([0, 1, 1, 1])
    task, truth = Classification(["a", "b", "c"]), truth_of(labels)
    assert task.confusion(probs, truth) == (["a", "b", "c"], [[1, 0, 0], [1, 2, 0], [0, 0, 0]])
    (first, second, third), _ = task.table(probs, truth)
    assert (first.precision, first.recall, first.support) == (0.5, 1.0, 1)
    assert (second.precision, second.recall, second.f1, second.support) == (
        1.0,
        pytest.approx(2 / 3),
        pytest.approx(0.8),
        3,
    )
    assert (third.label, third.precision, third.recall, third.f1, third.support) == ("c", 0.0, 0.0, 0.0, 0)


def test_members_disagree_on_the_rows_that_both_see() -> None:
    one, other = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 2, 1, 1]]
    seen = {"one": np.array([True, True, True, False]), "other": np.array([True, True, True, True])}
    third = {"third": np.eye(3)[[0, 0, 0, 0]]}, {"third": np.array([False, False, False, True])}
    found = disagreement({"one": one, "other": other} | third[0], seen | third[1])
    assert found == {
        "one": {"other": pytest.approx(2 / 3)}, "other": {"one": pytest.approx(2 / 3), "third": 1.0},
        "third": {"other": 1.0},
    }  # fmt: skip


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_averages_over_the_classes_agree_with_scikit_learn(average: str) -> None:
    probs, labels = draw(classes=5)
    _, averages = classify(probs).table(probs, truth_of(labels))
    found = {row.label: row for row in averages}[average]
    expected = reference.precision_recall_fscore_support(labels, probs.argmax(1), average=average)
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected[:3])
    assert found.support == len(labels)
