"""Fit what combines members: weights on the simplex, then a temperature, both on validation.

Shape letters: N examples, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fuseline.models.combine import combine


def fit_weights(
    log_probs_NMC: Tensor, usable_NM: Tensor, labels_N: Tensor, pool: str, uniform_pull: float
) -> list[float]:
    """Minimise the negative log-likelihood over weights >= 0 that sum to 1.

    The divergence from equal weights, times `uniform_pull`, is added: a small validation split
    would else give everything to one member.
    """
    members = log_probs_NMC.shape[1]
    if members == 1:
        return [1.0]
    free_M = torch.zeros(members, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        pooled_NC = combine(log_probs_NMC, usable_NM, free_M.softmax(0), pool)
        pull = (free_M.log_softmax(0) + torch.tensor(float(members)).log()).neg().mean()
        return F.cross_entropy(pooled_NC, labels_N) + uniform_pull * pull

    _minimise(loss, free_M)
    return [float(weight) for weight in free_M.detach().softmax(0)]


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Minimise the negative log-likelihood over one temperature (Guo et al. 2017)."""
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    _minimise(lambda: F.cross_entropy(logits_NC / log_temperature.exp(), labels_N), log_temperature)
    return float(log_temperature.detach().exp().clamp(0.05, 20))


def _minimise(loss: Callable[[], Tensor], parameter: Tensor) -> None:
    optimizer = torch.optim.LBFGS([parameter], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
