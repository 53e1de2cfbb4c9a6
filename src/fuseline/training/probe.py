"""A linear head on encoders as they were loaded: what fine-tuning has to beat."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fuseline.errors import ConfigError

Floats = NDArray[np.floating]
RARE = -30.0
"""Bias of a class without an example."""


def fit_probe(
    features_ND: Floats, labels_N: NDArray[np.int64], classes: int, penalty: float, steps: int, single: bool = False
) -> tuple[Floats, Floats]:
    """Fit a logistic regression on standardised features and fold the standardisation into it.

    Args:
        penalty: weight of half the squared weights against the summed loss.
        steps: of L-BFGS, at most.
        single: whether rows may be all of one class, which is then foretold for any.

    Returns:
        weight [C, D] and bias [C] for raw features; classes without an example get a very low bias.

    Raises:
        ConfigError: the rows are all of one class.
    """
    if single and len(np.unique(labels_N)) == 1:
        return np.zeros((classes, features_ND.shape[1])), np.where(np.arange(classes) == labels_N[0], 0.0, RARE)
    if len(np.unique(labels_N)) == 1:
        raise ConfigError(
            f"evaluate.probe_rows: the {len(labels_N)} training rows that it keeps are all of one class, from which "
            "no linear head can be fitted; raise it"
        )
    mean_D, std_D = features_ND.mean(0), features_ND.std(0) + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an unfinished fit is close enough for a yardstick
        model = LogisticRegression(C=1 / penalty, max_iter=steps).fit((features_ND - mean_D) / std_D, labels_N)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercepts = (
            np.vstack([-coefficients / 2, coefficients / 2]),
            np.hstack([-intercepts / 2, intercepts / 2]),
        )
    weight_CD = np.zeros((classes, features_ND.shape[1]))
    bias_C = np.full(classes, RARE)
    weight_CD[model.classes_] = coefficients / std_D
    bias_C[model.classes_] = intercepts - weight_CD[model.classes_] @ mean_D
    return weight_CD, bias_C


def probe_probs(features_ND: Floats, weight_CD: Floats, bias_C: Floats) -> Floats:
    """Return the probe's probabilities [N, C]."""
    scores: Floats = softmax(features_ND @ weight_CD.T + bias_C, axis=1)
    return scores
