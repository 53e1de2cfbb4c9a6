"""Find from which probability a row has a label, on validation.

Shape letters: N rows, L labels, E rows at which the probability falls, sorted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fuseline.tasks.multilabel import HALF

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def fit_thresholds(yes_NL: Floats, true_NL: Ints, shrink: float) -> list[float]:
    """Return the threshold of each label, by the best F1.

    What is best on few rows is mostly chance: a label's own is drawn to the one with the best F1 over all labels
    together, as if `shrink` rows more had the label and spoke for that.
    """
    common = best_threshold(yes_NL.ravel(), true_NL.ravel())
    own_L = np.array([best_threshold(yes_N, true_N) for yes_N, true_N in zip(yes_NL.T, true_NL.T, strict=True)])
    rows_L = true_NL.sum(0)
    share_L = np.divide(rows_L, rows_L + shrink, out=np.zeros(len(own_L)), where=rows_L > 0)
    return (share_L * own_L + (1 - share_L) * common).tolist()  # type: ignore[no-any-return]


def best_threshold(yes_N: Floats, true_N: Ints) -> float:
    """Return the threshold with the best F1, half-way between two probabilities; of equals the one nearest to a half.

    Without any true row it is a half.
    """
    if not true_N.any():
        return HALF
    order_N = np.argsort(-yes_N, kind="stable")
    sorted_N, found_N = yes_N[order_N], true_N[order_N].cumsum()
    f1_N = 2 * found_N / (np.arange(1, len(yes_N) + 1) + true_N.sum())
    lower_N = np.append(sorted_N[1:], 0.0)
    between_E = np.flatnonzero(sorted_N > lower_N)  # rows of one probability are taken together
    cuts_E = ((sorted_N + lower_N) / 2)[between_E]
    best_E = np.flatnonzero(np.isclose(f1_N[between_E], f1_N[between_E].max(), rtol=0, atol=1e-12))
    return float(min(cuts_E[best_E], key=lambda cut: (abs(cut - HALF), cut)))
