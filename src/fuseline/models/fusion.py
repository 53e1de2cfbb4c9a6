"""Ways to join the modalities' feature vectors.

Shape letters: B batch, M modalities, D joint size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fuseline.models.encoders.base import Encoded


class Fusion(nn.Module, ABC):
    """Joins what the encoders of two or more modalities give; where one is missing, it is given its embedding.

    Args:
        sizes: feature size of each modality.
        hidden: joint size.
    """

    looks_at_states: ClassVar[bool] = False
    """Whether it sees more of a modality than its vector."""

    @abstractmethod
    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, encoded: Sequence[Encoded]) -> Tensor:
        """Join to [B, D]."""


class Concat(Fusion):
    """Project each modality, concatenate, mix with one hidden layer."""

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.mix = nn.Sequential(nn.Linear(hidden * len(sizes), hidden), nn.GELU())

    def forward(self, encoded: Sequence[Encoded]) -> Tensor:
        joint = torch.cat([p(x.vector_BD) for p, x in zip(self.project, encoded, strict=True)], dim=1)
        mixed: Tensor = self.mix(joint)
        return mixed


class Gated(Fusion):
    """Weigh the projected modalities, per example and dimension, by gates that see all of them.

    Source: gated multimodal unit, Arevalo et al. 2017, eq. 2; the gates are a softmax over the
    modalities, so that any number of them can take part.
    """

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.gate = nn.Linear(hidden * len(sizes), hidden * len(sizes))

    def forward(self, encoded: Sequence[Encoded]) -> Tensor:
        projected_BMD = torch.stack([p(x.vector_BD) for p, x in zip(self.project, encoded, strict=True)], dim=1)
        gates_BMD: Tensor = self.gate(projected_BMD.flatten(1)).view_as(projected_BMD).softmax(1)
        return (gates_BMD * projected_BMD).sum(1)


def _projection(size: int, hidden: int) -> nn.Module:
    """Bring a modality to the joint size and to unit scale: else the larger features drown the others."""
    return nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden), nn.Tanh())


FUSIONS: dict[str, type[Fusion]] = {"concat": Concat, "gated": Gated}
