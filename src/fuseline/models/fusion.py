"""Ways to join the modalities' feature vectors.

Shape letters: B batch, M modalities, D joint size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Project each modality, concatenate, mix with one hidden layer."""

    def __init__(self, sizes: list[int], hidden: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.mix = nn.Sequential(nn.Linear(hidden * len(sizes), hidden), nn.GELU())

    def forward(self, features: list[Tensor]) -> Tensor:
        """Join features [B, size] to [B, D]."""
        joint = torch.cat([p(x) for p, x in zip(self.project, features, strict=True)], dim=1)
        mixed: Tensor = self.mix(joint)
        return mixed


class Gated(nn.Module):
    """Weigh the projected modalities, per example and dimension, by gates that see all of them.

    Source: gated multimodal unit, Arevalo et al. 2017, eq. 2; the gates are a softmax over the
    modalities, so that any number of them can take part.
    """

    def __init__(self, sizes: list[int], hidden: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.gate = nn.Linear(hidden * len(sizes), hidden * len(sizes))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Join features [B, size] to [B, D]."""
        projected_BMD = torch.stack([p(x) for p, x in zip(self.project, features, strict=True)], dim=1)
        gates_BMD: Tensor = self.gate(projected_BMD.flatten(1)).view_as(projected_BMD).softmax(1)
        return (gates_BMD * projected_BMD).sum(1)


def _projection(size: int, hidden: int) -> nn.Module:
    """Bring a modality to the joint size and to unit scale: else the larger features drown the others."""
    return nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden), nn.Tanh())


FUSIONS: dict[str, type[Concat] | type[Gated]] = {"concat": Concat, "gated": Gated}
