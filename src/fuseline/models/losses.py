"""Losses over soft labels.

Shape letters: B batch, C classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_BC: Tensor, labels_BC: Tensor, gamma: float = 0.0) -> Tensor:
    """Return the mean over rows of the cross-entropy, focal with a `gamma` above 0 (Lin et al. 2017, eq. 4).

    Args:
        labels_BC: weights of the classes' terms, by rights a distribution.
        gamma: each class's term is multiplied by (1 - probability) ** gamma.
    """
    if not gamma:
        return F.cross_entropy(logits_BC, labels_BC)
    log_probs_BC = logits_BC.log_softmax(1)
    rest_BC = -log_probs_BC.expm1()  # 1 - p, exact near p = 1
    return -(labels_BC * rest_BC.clamp(min=1e-12) ** gamma * log_probs_BC).sum(1).mean()
