"""Pictures inside the graph: uint8 [B, H, W, 3] of any size to normalised float [B, 3, S, S].

Shape letters: B batch, H height, W width, S side of the resized square, I input length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def resize(pixels_B3HW: Tensor, side: int) -> Tensor:
    """Resize float pictures to a square, bilinear with antialiasing, as Pillow does.

    Two matrix products with triangle filters: unlike the Resize operator, the same arithmetic in
    torch and in every ONNX runtime, at any input size. The aspect ratio is not kept.
    """
    rows_SH = triangle_filter(pixels_B3HW.shape[2], side, pixels_B3HW)
    columns_SW = triangle_filter(pixels_B3HW.shape[3], side, pixels_B3HW)
    return rows_SH @ pixels_B3HW @ columns_SW.T


def triangle_filter(length: int, side: int, like: Tensor) -> Tensor:
    """Return [side, length] weights, each row summing to 1, for resampling `length` samples to `side`."""
    scale = length / side
    support: Any = torch.sym_max(scale, 1.0)  # a float, or a symbol while exporting
    centers_S1 = (torch.arange(side, device=like.device, dtype=like.dtype)[:, None] + 0.5) * scale
    positions_I = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    weights_SI = torch.relu(1 - (positions_I - centers_S1).abs() / support)
    return weights_SI / weights_SI.sum(1, keepdim=True)


class Preprocess(nn.Module):
    """Resize, scale to [0, 1] and normalise."""

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, side: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean_311", torch.tensor(mean)[:, None, None])
        self.register_buffer("std_311", torch.tensor(std)[:, None, None])

    def forward(self, pixels_BHW3: Tensor) -> Tensor:
        """Map uint8 [B, H, W, 3] to float [B, 3, side, side]."""
        pixels_B3HW = pixels_BHW3.permute(0, 3, 1, 2).to(self.mean_311.dtype)
        return (resize(pixels_B3HW, self.side) / 255 - self.mean_311) / self.std_311
