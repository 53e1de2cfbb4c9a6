"""Whether answers are right as often as their confidence says, bin by bin, and what chance alone would show.

Shape letters: U units, C classes, K bins.
"""

from __future__ import annotations

import numpy as np

from fuseline.records import Bin, Calibration, Estimate
from fuseline.tasks.base import BINS, Floats, Ints, calibration_bins

DRAWS = 400


def calibrate(probs_UC: Floats, labels_U: Ints) -> Calibration:
    """Compare confidence with the share of right answers.

    The calibration error is a sum of absolute values, so that on few units it is above zero however good a model is
    (Kumar et al. 2019, Verified Uncertainty Calibration): `chance` says by how much.
    """
    confidence_U = probs_UC.max(1).astype(float)
    hit_U = probs_UC.argmax(1) == labels_U
    bin_U = calibration_bins(confidence_U)
    units_K, sure_K, hits_K = (np.bincount(bin_U, weights, BINS) for weights in (None, confidence_U, hit_U))
    bins = [
        Bin(units=int(units), confidence=float(sure / units), accuracy=float(hits / units))
        for units, sure, hits in zip(units_K, sure_K, hits_K, strict=True)
        if units
    ]
    return Calibration(bins=bins, chance=_draw_error(confidence_U, bin_U))


def _draw_error(confidence_U: Floats, bin_U: Ints) -> Estimate:
    """Draw right and wrong answers as the confidences say, and return the calibration error that they show."""
    random = np.random.default_rng(0)
    sure_K = np.bincount(bin_U, confidence_U, BINS)
    errors = np.empty(DRAWS)
    for draw in range(DRAWS):
        hits_K = np.bincount(bin_U, random.random(len(bin_U)) < confidence_U, BINS)
        errors[draw] = np.abs(hits_K - sure_K).sum() / max(len(bin_U), 1)
    low, high = np.quantile(errors, [0.05, 0.95])
    return Estimate(value=float(errors.mean()), low=float(low), high=float(high))
