"""The linear probe is scikit-learn's logistic regression, folded into one matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fuseline.errors import ConfigError
from fuseline.training.probe import fit_probe, probe_probs

AS_SHIPPED: dict[str, Any] = {"penalty": 20.0, "steps": 300}


def draw(labels: list[int], rows: int = 120) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    drawn = random.choice(labels, size=rows)
    return random.normal(size=(rows, 6)) * 3 + 5 + 2 * np.eye(5, 6)[drawn], drawn


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 3]], ids=["two classes", "four classes"])
def test_probabilities_are_those_of_scikit_learn(labels: list[int]) -> None:
    features, drawn = draw(labels)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300)).fit(features, drawn)
    found = probe_probs(features, *fit_probe(features, drawn, len(labels), **AS_SHIPPED))
    np.testing.assert_allclose(found, reference.predict_proba(features), atol=1e-4)


@pytest.mark.parametrize("labels", [[1, 3], [0, 2, 3]], ids=["two of five", "three of five"])
def test_a_class_without_examples_is_never_predicted(labels: list[int]) -> None:
    features, drawn = draw(labels)
    probs = probe_probs(features, *fit_probe(features, drawn, 5, **AS_SHIPPED))
    absent = sorted(set(range(5)) - set(labels))
    assert probs.shape == (120, 5)
    assert probs[:, absent].max() < 1e-6
    np.testing.assert_allclose(probs.sum(1), 1)


def test_rows_of_one_class_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.probe_rows: the 120 training rows .* one class.*; raise it"):
        fit_probe(*draw([3]), classes=5, **AS_SHIPPED)


def test_a_feature_that_never_varies_gives_finite_numbers() -> None:
    features, drawn = draw([0, 1])
    features[:, 2] = 7.0
    assert np.isfinite(probe_probs(features, *fit_probe(features, drawn, 2, **AS_SHIPPED))).all()
