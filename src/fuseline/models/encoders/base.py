"""What every encoder gives.

Shape letters: B batch, T tokens (words, patches, frames), D feature size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class Encoded(NamedTuple):
    """One modality of a batch, encoded."""

    vector_BD: Tensor
    """The example as a whole."""
    states_BTD: Tensor
    """Its parts, for fusions that look at them one by one."""
    mask_BT: Tensor
    """bool, which of them are there."""

    @classmethod
    def whole(cls, vector_BD: Tensor) -> Self:
        """Take the vector itself for the only part."""
        return cls(vector_BD, vector_BD[:, None], torch.ones_like(vector_BD[:, :1], dtype=torch.bool))

    def with_vector(self) -> Self:
        """Put the vector before the parts, as one more."""
        first = type(self).whole(self.vector_BD)
        states_BTD = torch.cat([first.states_BTD, self.states_BTD], dim=1)
        return self._replace(states_BTD=states_BTD, mask_BT=torch.cat([first.mask_BT, self.mask_BT], dim=1))


def mean_over(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Average the states that are there; zeros where none is."""
    mask_BT1 = mask_BT.unsqueeze(2).to(states_BTD.dtype)
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)


class Encoder(nn.Module, ABC):
    """Encodes one modality; `forward` takes the tensors of its inputs by name, the flag apart."""

    size: int
    """D."""

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of an encoder of the same kind; what only this one has, stays as it is."""
        self.load_state_dict(weights)

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Encoded:
        """Encode a batch."""
