"""Where tokens stand in a picture: a part of their embeddings, and of how much they attend to each other.

Shape letters: B batch, S tokens, F features of a box, D feature size, H heads of attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.inputs.boxes import SIDE

OCTAVES = 8
"""Waves per number: the longest is two sides of the picture, the shortest a 64th of one, near the height of a line."""
FEATURES = 6 * 2 * OCTAVES + 2
EDGES_SHARE = 1 / 16
"""Of the features that say where a box begins and ends: at the head's rate they are soon heard, and drown no word."""
ROWS = (-16, -8, -5, -3, -1, 1, 3, 5, 8, 16)
"""Steps of how far below a token another one stands, in half heights of its own box: from -1 to 1 it is beside."""
GAPS = (-30, -12, -5, -2, -1, 1, 2, 5, 12, 30)
"""Steps of the gap to the right of it, in whole heights: from -1 to 1 their boxes touch or overlap."""
RELATIONS = (len(ROWS) + 1) * (len(GAPS) + 1)
GAIN = 10.0
"""Of scores over weights: at the head's rate, scores that matter to a softmax are learned within hundreds of steps."""
HIDDEN = -1e4
"""Score of what is not there: a softmax makes 0 of it in each precision."""


class Layout(nn.Module):
    """What boxes add to embeddings and to scores of attention: at first nothing, a member begins as it was loaded.

    To a token's embedding: sines and cosines of its box's sides, width and height, whether its box begins or ends with
    it, and a linear layer. Few documents teach them; tables with a vector for each of the 1,001 places, as LayoutLM
    has (Xu et al. 2020), are learned place by place. Waves are divided by their number, so that a step of Adam moves
    no embedding further than its rate: else, at the head's, places soon drown the words.

    To the score of one token's attention to another: a number for each head and each way that one box can stand to
    another, so many rows above or below and so far to the left or right. Distances are counted in the token's own
    height, for these mean the same on a long receipt and a short one.

    Source: the waves are those of Mildenhall et al. 2020, eq. 4; scores that all layers share, LayoutLMv2 (Xu et al.
    2021, eq. 4), whose distances are counted in thousandths of the page and from left and from top apart.

    Args:
        size: D of the embeddings.
        heads: H; 0 where attention takes no scores.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, FEATURES))  # zeros draw nothing: all else begins as without
        self.bias = nn.Parameter(torch.zeros(size))
        self.relations = nn.Parameter(torch.zeros(RELATIONS, heads)) if heads else None

    def forward(self, boxes_BS4: Tensor) -> Tensor:
        """Return what is added to embeddings, [B, S, D]; zeros for tokens without a box, whose numbers are below 0."""
        added_BSD = F.linear(describe_boxes(boxes_BS4).to(self.weight.dtype), self.weight, self.bias)
        return torch.where(boxes_BS4[:, :, :1] >= 0, added_BSD, torch.zeros_like(added_BSD))

    def scores(self, boxes_BS4: Tensor, mask_BS: Tensor, causal: bool) -> Tensor:
        """Return what is added to the scores of attention, [B, H, S, S]; zeros between tokens one of which has no box.

        Args:
            mask_BS: 1 for tokens that are there; the others get HIDDEN.
            causal: whether those behind a token get HIDDEN too.
        """
        assert self.relations is not None
        there_BS = boxes_BS4[:, :, 0] >= 0
        there_BSS1 = (there_BS[:, :, None] & there_BS[:, None, :])[..., None]
        scores_BSSH = GAIN * F.embedding(relate_boxes(boxes_BS4), self.relations)
        scores_BHSS = torch.where(there_BSS1, scores_BSSH, torch.zeros_like(scores_BSSH)).permute(0, 3, 1, 2)
        seen_B1SS = mask_BS.bool()[:, None, None, :]
        if causal:
            order_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
            seen_B1SS = seen_B1SS & (order_S[:, None] >= order_S)
        return torch.where(seen_B1SS, scores_BHSS, torch.full_like(scores_BHSS, HIDDEN))


def describe_boxes(boxes_BS4: Tensor) -> Tensor:
    """Return features [B, S, F] of left, top, right, bottom, width and height, and whether a box begins and ends."""
    numbers_BS6 = torch.cat([boxes_BS4, boxes_BS4[:, :, 2:] - boxes_BS4[:, :, :2]], dim=2).float() / SIDE
    waves_K = math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes_BS4.device)
    angles = (numbers_BS6.unsqueeze(3) * waves_K).flatten(2)
    waves = torch.cat([angles.sin(), angles.cos()], dim=2) / (6 * 2 * OCTAVES)
    return torch.cat([waves, EDGES_SHARE * find_edges(boxes_BS4).to(waves.dtype)], dim=2)


def find_edges(boxes_BS4: Tensor) -> Tensor:
    """Tell whether a token is its box's first, and whether it is the last, bool [B, S, 2]."""
    nowhere_B14 = torch.full_like(boxes_BS4[:, :1], -1)
    around = torch.cat([nowhere_B14, boxes_BS4, nowhere_B14], dim=1)
    return torch.stack([(boxes_BS4 != other).any(2) for other in (around[:, :-2], around[:, 2:])], dim=2)


def relate_boxes(boxes_BS4: Tensor) -> Tensor:
    """Return a number below RELATIONS of how each box stands to each other, int64 [B, S, S]; no rounding decides it."""
    left_BS, top_BS, right_BS, bottom_BS = boxes_BS4.unbind(2)
    height_BS1 = (bottom_BS - top_BS).clamp(min=1)[:, :, None]
    below_BSS = _to_others(top_BS + bottom_BS, top_BS + bottom_BS)
    gap_BSS = _to_others(right_BS, left_BS).clamp(min=0) + _to_others(left_BS, right_BS).clamp(max=0)
    return count_steps(below_BSS, ROWS, height_BS1) * (len(GAPS) + 1) + count_steps(gap_BSS, GAPS, height_BS1)


def _to_others(own_BS: Tensor, other_BS: Tensor) -> Tensor:
    """Return how much each token's number differs from the other one of each other token, [B, S, S]."""
    return other_BS[:, None, :] - own_BS[:, :, None]


def count_steps(distances_BSS: Tensor, steps: Sequence[int], unit_BS1: Tensor) -> Tensor:
    """Count the steps that are reached, int64 [B, S, S]: a table of places, and no [B, S, S, steps] in memory."""
    reached = torch.zeros_like(distances_BSS)
    for step in steps:
        reached = reached + (distances_BSS >= step * unit_BS1).to(reached.dtype)
    return reached
