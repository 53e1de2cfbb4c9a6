"""The rule that makes one distribution of several members'; nothing but arithmetic.

Shape letters: B batch, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def usable(modalities: Sequence[Sequence[str]], present: Mapping[str, Tensor]) -> Tensor:
    """Return bool [B, M]: whether each member finds at least one of its modalities in each example."""
    return torch.stack([torch.stack([present[name] for name in names]).any(0) for names in modalities], dim=1)


def combine(log_probs_BMC: Tensor, usable_BM: Tensor, weights_M: Tensor, pool: str) -> Tensor:
    """Pool members to unnormalised log-probabilities [B, C].

    A member without any of its modalities has no say, and the others share its weight, evenly where theirs is
    nothing. Where no member has one, all speak. `geometric` is the logarithmic opinion pool, `arithmetic` the linear
    one (Genest and Zidek 1986).
    """
    speaks_BM = usable_BM | ~usable_BM.any(1, keepdim=True)
    weights_BM = weights_M * speaks_BM
    weights_BM = torch.where(weights_BM.sum(1, keepdim=True) > 0, weights_BM, speaks_BM.to(weights_M.dtype))
    weights_BM1 = (weights_BM / weights_BM.sum(1, keepdim=True).clamp(min=1e-12))[:, :, None]
    if pool == "geometric":
        return (weights_BM1 * log_probs_BMC).sum(1)
    return (weights_BM1 * log_probs_BMC.exp()).sum(1).clamp(min=1e-30).log()
