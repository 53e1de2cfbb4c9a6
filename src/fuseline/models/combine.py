"""The rule that makes one distribution of several members'; nothing but arithmetic.

Shape letters: B batch, M members, C classes, P patterns of availability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Self

import torch
from torch import Tensor, nn

LEAST = -20.0
"""Log-probabilities below count as this in stacking: one number must not outvote all others."""


class Combiner(nn.Module):
    """Members' log-probabilities to the ensemble's logits: a pool, perhaps corrected by stacking, and a temperature.

    Args:
        weights: of the members, summing to 1.
        pool: geometric or arithmetic.
        by_pattern: weights for patterns of availability, in the order of `patterns_of`; None where all have the same.
        stack: the correction's weights [M, C, C], from what a member says of one class to the score of another, and
            its bias [C]; None where there is none.
    """

    weights_M: Tensor
    temperature: Tensor
    by_pattern_PM: Tensor | None
    stack_MCC: Tensor | None
    bias_C: Tensor | None

    def __init__(
        self, weights: Tensor, temperature: Tensor, pool: str, by_pattern: Tensor | None = None,
        stack: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pool = pool
        self.register_buffer("weights_M", weights)
        self.register_buffer("temperature", temperature)
        self.register_buffer("by_pattern_PM", by_pattern)
        self.register_buffer("stack_MCC", None if stack is None else stack[0])
        self.register_buffer("bias_C", None if stack is None else stack[1])

    def forward(self, log_probs_BMC: Tensor, usable_BM: Tensor, pattern_B: Tensor) -> Tensor:
        """Return logits [B, C].

        Args:
            pattern_B: the number of each example's pattern of availability, int64, as `number_patterns` gives it.
        """
        weights = self.weights_M if self.by_pattern_PM is None else self.by_pattern_PM[pattern_B]
        logits_BC = combine(log_probs_BMC, usable_BM, weights, self.pool)
        if self.stack_MCC is not None and self.bias_C is not None:
            logits_BC = logits_BC + correct(log_probs_BMC, usable_BM, self.stack_MCC) + self.bias_C
        return logits_BC / self.temperature

    def without(self, member: int) -> Self:
        """Return it for the other members alone."""
        rest = [other for other in range(len(self.weights_M)) if other != member]
        table, stack, bias = self.by_pattern_PM, self.stack_MCC, self.bias_C
        return type(self)(
            self.weights_M[rest], self.temperature, self.pool, None if table is None else table[:, rest],
            None if stack is None or bias is None else (stack[rest], bias),
        )  # fmt: skip


def patterns_of(modalities: Sequence[str]) -> list[str]:
    """Name all patterns of availability by what is there, in the order of their numbers: "" is nothing."""
    there = product([False, True], repeat=len(modalities))
    named = [[name for name, is_there in zip(modalities, reversed(flags), strict=True) if is_there] for flags in there]
    return ["+".join(names) for names in named]


def number_patterns(present: Sequence[Tensor]) -> Tensor:
    """Return the number of each example's pattern [B], from which modalities are there, bool [B] each."""
    return torch.stack([flags.long() << place for place, flags in enumerate(present)]).sum(0)


def correct(log_probs_BMC: Tensor, usable_BM: Tensor, stack_MCC: Tensor) -> Tensor:
    """Return what stacking adds to the logits [B, C]; a member without any of its modalities adds nothing."""
    said_BMC = log_probs_BMC.clamp(min=LEAST)
    said_BMC = (said_BMC - said_BMC.mean(2, keepdim=True)) * usable_BM[:, :, None]
    return said_BMC.flatten(1) @ stack_MCC.flatten(0, 1)


def usable(modalities: Sequence[Sequence[str]], present: Mapping[str, Tensor]) -> Tensor:
    """Return bool [B, M]: whether each member finds at least one of its modalities in each example."""
    return torch.stack([torch.stack([present[name] for name in names]).any(0) for names in modalities], dim=1)


def combine(log_probs_BMC: Tensor, usable_BM: Tensor, weights_M: Tensor, pool: str) -> Tensor:
    """Pool members to unnormalised log-probabilities [B, C], by weights [M], or [B, M] where examples have their own.

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
