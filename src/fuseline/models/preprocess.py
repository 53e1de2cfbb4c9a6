"""Pictures inside the graph: uint8 [B, H, W, 3] of any size to normalised float [B, 3, S, S].

Shape letters: B batch, H height, W width, S side of the square that comes out, I input length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def triangle(distance: Tensor) -> Tensor:
    """Weigh by distance, bilinear."""
    return torch.relu(1 - distance)


def cubic(distance: Tensor) -> Tensor:
    """Weigh by distance, bicubic with a = -0.5, as Pillow does (Keys 1981)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": triangle, "bicubic": cubic}


def resize(pixels_B3HW: Tensor, side: int, shorter: int | None = None, kernel: str = "bilinear") -> Tensor:
    """Resize float pictures to a square, with antialiasing, as Pillow does.

    Two matrix products with filters: unlike the Resize operator, the same arithmetic in torch and in every ONNX
    runtime, at any input size.

    Args:
        side: S.
        shorter: the shorter side is brought to so many pixels, and the middle S x S of what comes out is taken; with
            null the whole picture is squeezed or stretched into the square.
    """
    height, width = pixels_B3HW.shape[2:]
    if shorter is None:
        rows_SH, columns_SW = (filter_of(length, side, pixels_B3HW, kernel) for length in (height, width))
    else:
        shortest: Any = torch.sym_min(height, width)  # a number, or a symbol while exporting
        rows_SH, columns_SW = (
            middle_of(length, length * shorter // shortest, side, pixels_B3HW, kernel) for length in (height, width)
        )
    resized_B3SS = rows_SH @ pixels_B3HW @ columns_SW.T
    return resized_B3SS if kernel == "bilinear" else resized_B3SS.clamp(0, 255)  # bicubic goes beyond its pixels


def filter_of(length: int, side: int, like: Tensor, kernel: str = "bilinear") -> Tensor:
    """Return [side, length] weights, each row summing to 1, for resampling `length` samples to `side`."""
    return middle_of(length, side, side, like, kernel)


def middle_of(length: int, resized: Any, side: int, like: Tensor, kernel: str) -> Tensor:
    """Return [side, length] weights for the middle `side` of the `resized` samples that `length` would become."""
    scale = length / resized
    support: Any = torch.sym_max(scale, 1.0)
    places_S1 = torch.arange(side, device=like.device, dtype=like.dtype)[:, None] + 0.5
    if resized is not side:
        places_S1 = places_S1 + (resized - side) // 2
    positions_I = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    weights_SI = KERNELS[kernel]((positions_I - places_S1 * scale).abs() / support)
    return weights_SI / weights_SI.sum(1, keepdim=True)


class Preprocess(nn.Module):
    """Resize, scale to [0, 1] and normalise.

    Args:
        side: S.
        mean: of each channel, subtracted.
        std: of each channel, divided by.
        shorter: as in `resize`.
        kernel: bilinear or bicubic.
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(
        self, side: int, mean: Sequence[float], std: Sequence[float], shorter: int | None = None,
        kernel: str = "bilinear",
    ) -> None:  # fmt: skip
        super().__init__()
        self.side, self.shorter, self.kernel = side, shorter, kernel
        self.register_buffer("mean_311", torch.tensor(mean)[:, None, None])
        self.register_buffer("std_311", torch.tensor(std)[:, None, None])

    def forward(self, pixels_BHW3: Tensor) -> Tensor:
        """Map uint8 [B, H, W, 3] to float [B, 3, side, side]."""
        pixels_B3HW = pixels_BHW3.permute(0, 3, 1, 2).to(self.mean_311.dtype)
        resized_B3SS = resize(pixels_B3HW, self.side, self.shorter, self.kernel)
        return (resized_B3SS / 255 - self.mean_311) / self.std_311
