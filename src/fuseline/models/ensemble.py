"""The ensemble: several members, one distribution.

Shape letters: B batch, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fuseline.inputs import READERS
from fuseline.inputs.base import flag
from fuseline.models.combine import combine, usable
from fuseline.models.member import FusionModel


class Ensemble(nn.Module):
    """Combine members to calibrated probabilities; one graph when exported."""

    weights_M: Tensor
    temperature: Tensor

    def __init__(
        self, members: Mapping[str, FusionModel], weights: Sequence[float], temperature: float, pool: str
    ) -> None:
        super().__init__()
        self.names = list(members)
        self.members = nn.ModuleList(members.values())  # a ModuleDict forbids names such as `train`
        self.pool = pool
        self.register_buffer("weights_M", torch.tensor(weights, dtype=torch.float32))
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    @property
    def modalities(self) -> list[str]:
        """Those that any member uses."""
        used = {name for member in self.members for name in member.config.modalities}  # type: ignore[union-attr]
        return [name for name in READERS if name in used]

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score every class; inputs as in FusionModel, of all modalities that any member uses.

        Returns:
            probabilities [B, C], logits [B, C], and the members' own probabilities [B, M, C].
        """
        log_probs_BMC = torch.stack([member(**inputs)["logits"].log_softmax(1) for member in self.members], dim=1)
        usable_BM = usable(
            [member.config.modalities for member in self.members],  # type: ignore[union-attr, misc]
            {name: inputs[flag(name)] for name in self.modalities},
        )
        logits_BC = combine(log_probs_BMC, usable_BM, self.weights_M, self.pool) / self.temperature
        return logits_BC.softmax(1), logits_BC, log_probs_BMC.exp()
