"""Ways to join the modalities' features.

Shape letters: B batch, M modalities, T tokens of a modality, S tokens of all others, D joint size, R ranks, E experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fuseline.models.encoders.base import Encoded

WIDENING = 4
"""Width of the layers between attention's, against the joint size: that of Vaswani et al. 2017."""


class Fused(NamedTuple):
    """The modalities of a batch, joined."""

    vector_BD: Tensor
    penalty: Tensor | None = None
    """A scalar that training adds to the loss."""


class Fusion(nn.Module, ABC):
    """Joins what the encoders of two or more modalities give; where one is missing, it is given its embedding.

    Args:
        sizes: feature size of each modality.
        hidden: joint size.
    """

    looks_at_states: ClassVar[bool] = False
    """Whether it sees more of a modality than its vector."""
    embeds_absent: ClassVar[bool] = True
    """Whether the embedding of what is missing has a say."""
    size: int
    """D of what comes out."""

    @abstractmethod
    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.size = hidden

    @abstractmethod
    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        """Join to [B, D].

        Args:
            present_BM: bool, which modalities are there.
        """


class Concat(Fusion):
    """Project each modality, concatenate, mix with one hidden layer."""

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.mix = nn.Sequential(nn.Linear(hidden * len(sizes), hidden), nn.GELU())

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        return Fused(self.mix(_project(self.project, encoded).flatten(1)))


class Gated(Fusion):
    """Weigh the projected modalities, per example and dimension, by gates that see all of them.

    Source: gated multimodal unit, Arevalo et al. 2017, eq. 2; the gates are a softmax over the
    modalities, so that any number of them can take part.
    """

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.gate = nn.Linear(hidden * len(sizes), hidden * len(sizes))

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        projected_BMD = _project(self.project, encoded)
        gates_BMD: Tensor = self.gate(projected_BMD.flatten(1)).view_as(projected_BMD).softmax(1)
        return Fused((gates_BMD * projected_BMD).sum(1))


class Late(Fusion):
    """Average the logits of one head per modality, over those that are there.

    What comes out is each modality's projection in a place of its own, divided by the number of modalities that are
    there: a linear layer on that is the average of linear layers, all with the same bias.
    """

    embeds_absent = False

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.size = hidden * len(sizes)

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        projected_BMD = _project(self.project, encoded)
        there_BM = present_BM.to(projected_BMD.dtype)
        shares_BM = there_BM / there_BM.sum(1, keepdim=True).clamp(min=1)
        return Fused((projected_BMD * shares_BM[:, :, None]).flatten(1))


class LowRank(Fusion):
    """Multiply the modalities' projections, several times over, and sum: a tensor of all products, at low rank.

    Source: Liu et al. 2018, section 3.2. Theirs appends a 1 to each modality, which is a bias here; ours starts
    at 1, so that in the beginning each modality is seen alone too, and not only in products.

    Args:
        rank: R.
    """

    def __init__(self, sizes: Sequence[int], hidden: int, rank: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.factors = nn.ModuleList(nn.Linear(hidden, rank * hidden) for _ in sizes)
        for factor in self.factors:
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(hidden)
        self.rank = rank

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        projected = _project(self.project, encoded).unbind(1)
        factors_BMRD = torch.stack(
            [factor(x).unflatten(1, (self.rank, -1)) for factor, x in zip(self.factors, projected, strict=True)], dim=1
        )
        return Fused(self.norm(factors_BMRD.prod(1).sum(1)))


class CrossAttention(Fusion):
    """Let the parts of each modality attend to those of all others: words to patches, patches to words.

    Before the first part stands the modality's own vector, and what it has become by the last layer is the result.

    Source: co-attention, Lu et al. 2019, section 2.2, without its layers inside a modality: those are the encoders'.

    Args:
        heads: of each attention.
        layers: how often they look at each other.
    """

    looks_at_states = True

    def __init__(self, sizes: Sequence[int], hidden: int, heads: int, layers: int) -> None:
        super().__init__(sizes, hidden)
        self.project = nn.ModuleList(nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden)) for size in sizes)
        self.layers = nn.ModuleList(
            nn.ModuleList(CrossLayer(hidden, heads) for _ in sizes) for _ in range(layers)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in sizes)
        self.mix = nn.Sequential(nn.Linear(hidden * len(sizes), hidden), nn.GELU())

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        whole = [x.with_vector() for x in encoded]
        states = [project(x.states_BTD) for project, x in zip(self.project, whole, strict=True)]
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            states = [
                look(own_BTD, *_all_but(number, states, [x.mask_BT for x in whole]))
                for number, (look, own_BTD) in enumerate(zip(layer, states, strict=True))
            ]
        firsts = [norm(own_BTD[:, 0]) for norm, own_BTD in zip(self.norms, states, strict=True)]
        return Fused(self.mix(torch.cat(firsts, dim=1)))


class CrossLayer(nn.Module):
    """Attention of one modality to the others, and two linear layers; each beside a shortcut, norms first."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm_own, self.norm_other, self.norm = (nn.LayerNorm(hidden) for _ in range(3))
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(hidden, WIDENING * hidden), nn.GELU(), nn.Linear(WIDENING * hidden, hidden))

    def forward(self, own_BTD: Tensor, other_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Return [B, T, D]; of the others, those in the mask are seen."""
        seen_BSD = self.norm_other(other_BSD)
        found_BTD, _ = self.attention(
            self.norm_own(own_BTD), seen_BSD, seen_BSD, key_padding_mask=~mask_BS, need_weights=False
        )
        own_BTD = own_BTD + found_BTD
        fed_BTD: Tensor = own_BTD + self.feed(self.norm(own_BTD))
        return fed_BTD


class Mixture(Fusion):
    """Networks that see all modalities; a router chooses some of them for each example, and how much each says.

    A row whose next best network scores the same may be sent elsewhere by another runtime's rounding.

    Source: Shazeer et al. 2017, without noise; gates and penalty as Fedus et al. 2022, eq. 2 and 4, for any number of
    chosen ones. All networks are computed: they are small, and the graph has one shape.

    Args:
        experts: E.
        chosen: of them, for each example.
        balance: weight of the penalty on a router that prefers some of them.
    """

    def __init__(self, sizes: Sequence[int], hidden: int, experts: int, chosen: int, balance: float) -> None:
        super().__init__(sizes, hidden)
        width = hidden * len(sizes)
        self.project = nn.ModuleList(_projection(size, hidden) for size in sizes)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, hidden), nn.GELU()) for _ in range(experts))
        self.chosen, self.balance = chosen, balance

    def forward(self, encoded: Sequence[Encoded], present_BM: Tensor) -> Fused:
        joint_BW = _project(self.project, encoded).flatten(1)
        probs_BE = self.router(joint_BW).softmax(1)
        chosen_BE = torch.zeros_like(probs_BE).scatter(1, probs_BE.topk(self.chosen, dim=1).indices, 1.0)
        said_BED = torch.stack([expert(joint_BW) for expert in self.experts], dim=1)
        vector_BD = ((probs_BE * chosen_BE)[:, :, None] * said_BED).sum(1)
        return Fused(vector_BD, self.balance * imbalance(probs_BE, chosen_BE) if self.training else None)


def imbalance(probs_BE: Tensor, chosen_BE: Tensor) -> Tensor:
    """Return the penalty of Fedus et al. 2022, eq. 4: 1 where all experts have as much to do, E where one has all.

    Args:
        chosen_BE: 1 where an expert is chosen, else 0.
    """
    loads_E = chosen_BE.mean(0) / chosen_BE.sum(1).mean()
    return probs_BE.shape[1] * (loads_E * probs_BE.mean(0)).sum()


def _projection(size: int, hidden: int) -> nn.Module:
    """Bring a modality to the joint size and to unit scale: else the larger features drown the others."""
    return nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden), nn.Tanh())


def _project(projections: nn.ModuleList, encoded: Sequence[Encoded]) -> Tensor:
    """Return the modalities' vectors [B, M, D], each projected."""
    return torch.stack([project(x.vector_BD) for project, x in zip(projections, encoded, strict=True)], dim=1)


def _all_but(number: int, states: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the tokens of all modalities but one [B, S, D], and their mask [B, S]."""
    others = [other for other in range(len(states)) if other != number]
    return torch.cat([states[other] for other in others], 1), torch.cat([masks[other] for other in others], 1)


FUSIONS: dict[str, type[Fusion]] = {
    "concat": Concat, "gated": Gated, "late": Late, "low-rank": LowRank, "cross-attention": CrossAttention,
    "mixture-of-experts": Mixture,
}  # fmt: skip
