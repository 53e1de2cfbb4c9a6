"""Calibration is told bin by bin, and what chance alone shows is what calibrated answers show."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from fuseline.evaluation.calibration import calibrate
from fuseline.tasks.base import BINS
from fuseline.tasks.classification import Classification


def answers(units: int, seed: int, sharpen: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw probabilities and labels of them; what is sharpened after is too sure."""
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.ones(4) * 0.4, units)
    labels = (probs.cumsum(1) > random.random(units)[:, None]).argmax(1)
    sharp = probs**sharpen
    return sharp / sharp.sum(1, keepdims=True), labels


def error_of(probs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    task = Classification(list("abcd"))
    return task.score(probs, task.assume_truth(labels))["ece"]


def test_bins_are_those_of_scikit_learn_and_of_the_calibration_error() -> None:
    probs, labels = answers(500, 0)
    found = calibrate(probs, labels)
    accuracy, confidence = calibration_curve(probs.argmax(1) == labels, probs.max(1), n_bins=BINS)
    assert [each.accuracy for each in found.bins] == pytest.approx(accuracy, abs=1e-9)
    assert [each.confidence for each in found.bins] == pytest.approx(confidence, abs=1e-9)
    gaps = sum(each.units * abs(each.accuracy - each.confidence) for each in found.bins)
    assert gaps / 500 == pytest.approx(error_of(probs, labels), abs=1e-9)


def test_nine_of_ten_calibrated_models_are_within_what_chance_shows() -> None:
    within = 0
    for seed in range(200):
        probs, labels = answers(300, seed)
        chance = calibrate(probs, labels).chance
        assert chance.low is not None
        assert chance.high is not None
        within += chance.low <= error_of(probs, labels) <= chance.high
    assert 0.85 <= within / 200 <= 0.95


def test_a_model_that_is_too_sure_is_beyond_it() -> None:
    probs, labels = answers(300, 0, sharpen=3.0)
    chance = calibrate(probs, labels).chance
    assert chance.high is not None
    assert error_of(probs, labels) > chance.high


def test_chance_fades_with_more_units() -> None:
    few, many = (calibrate(*answers(units, 0)).chance.value for units in (100, 10_000))
    assert many < few / 5


def test_of_no_unit_nothing_is_said() -> None:
    found = calibrate(np.empty((0, 4)), np.empty(0, np.int64))
    assert (found.bins, found.chance.value) == ([], 0.0)
