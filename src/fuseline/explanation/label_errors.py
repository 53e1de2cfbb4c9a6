"""Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang 2021, section 3.1).

The probabilities must come from a model that did not learn from these labels. Shape letters: U units, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Suspects:
    """Units whose label is in doubt, the most doubtful first."""

    units: Ints
    suggested: Ints
    """The class that each is probably of."""
    margins: Floats
    """Probability of the given label less that of the likeliest other one."""


def find_label_errors(probs_UC: Floats, labels_U: Ints) -> Suspects:
    """Return the units off the diagonal of the confident joint, ranked by their margin.

    A unit is counted for class j if its probability of j reaches the mean probability of j among the units labelled j,
    for the likeliest such j where there are several: eq. 1 and 2 there. A class that no unit is labelled with has no
    such mean, and none is counted for it.
    """
    units_U, classes = np.arange(len(labels_U)), probs_UC.shape[1]
    own_U = probs_UC[units_U, labels_U]
    count_C = np.bincount(labels_U, minlength=classes)
    sums_C = np.bincount(labels_U, weights=own_U, minlength=classes)
    threshold_C = np.divide(sums_C, count_C, out=np.full(classes, np.inf), where=count_C > 0)
    confident_UC = np.where(probs_UC >= threshold_C, probs_UC, -np.inf)
    counted_U = confident_UC.argmax(1)
    doubted_U = np.isfinite(confident_UC.max(1)) & (counted_U != labels_U)
    others_UC = probs_UC.copy()
    others_UC[units_U, labels_U] = -np.inf
    margin_U = own_U - others_UC.max(1)
    found = np.flatnonzero(doubted_U)
    ranked = found[np.argsort(margin_U[found], kind="stable")]
    return Suspects(ranked, counted_U[ranked], margin_U[ranked])
