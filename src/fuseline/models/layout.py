"""Where tokens stand in a picture, as a part of their embeddings.

Shape letters: B batch, S tokens, F features of a box, D feature size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.inputs.boxes import SIDE

OCTAVES = 8
"""Waves per number: the longest is two sides of the picture, the shortest a 64th of one, near the height of a line."""
FEATURES = 6 * 2 * OCTAVES


class Layout(nn.Module):
    """What a token's box adds to its embedding: at first nothing, so that a member begins as the encoder was loaded.

    Sines and cosines of the box's sides, width and height, and a linear layer. Few documents teach them; tables with a
    vector for each of the 1,001 places, as LayoutLM has (Xu et al. 2020), are learned place by place. They are divided
    by their number, so that a step of Adam moves no embedding further than its rate: else, at the head's, places soon
    drown the words.

    Source: the waves are those of Mildenhall et al. 2020, eq. 4.

    Args:
        size: D of the embeddings.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, FEATURES))  # zeros draw nothing: all else begins as without
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, boxes_BS4: Tensor) -> Tensor:
        """Return [B, S, D]; zeros for tokens without a box, whose numbers are below 0."""
        there_BS1 = boxes_BS4[:, :, :1] >= 0
        added_BSD = F.linear(describe_boxes(boxes_BS4).to(self.weight.dtype), self.weight, self.bias)
        return torch.where(there_BS1, added_BSD, torch.zeros_like(added_BSD))


def describe_boxes(boxes_BS4: Tensor) -> Tensor:
    """Return features [B, S, F] of left, top, right, bottom, width and height."""
    numbers_BS6 = torch.cat([boxes_BS4, boxes_BS4[:, :, 2:] - boxes_BS4[:, :, :2]], dim=2).float() / SIDE
    waves_K = math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes_BS4.device)
    angles = (numbers_BS6.unsqueeze(3) * waves_K).flatten(2)
    return torch.cat([angles.sin(), angles.cos()], dim=2) / FEATURES
