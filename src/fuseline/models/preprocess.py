"""Pictures inside the graph: uint8 [B, H, W, 3] of any size to normalised float [B, 3, S, S].

Shape letters: B batch, H height, W width, S side of the square that comes out, I input length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    indices = [torch.arange(length, device=pixels_B3HW.device) for length in pixels_B3HW.shape[2:]]
    lengths = [each[-1] + 1 for each in indices]  # found where the pixels are, so that no number has to go to a GPU
    resized: list[Tensor | int] = [side, side]
    if shorter is not None:
        shortest = torch.minimum(*lengths)
        resized = [torch.div(length * shorter, shortest, rounding_mode="trunc") for length in lengths]
    rows_SH, columns_SW = (
        middle_of(each.to(pixels_B3HW.dtype), of, side, kernel) for each, of in zip(indices, resized, strict=True)
    )
    resized_B3SS = rows_SH @ pixels_B3HW @ columns_SW.T
    return resized_B3SS if kernel == "bilinear" else resized_B3SS.clamp(0, 255)  # bicubic goes beyond its pixels


def middle_of(indices_I: Tensor, resized: Tensor | int, side: int, kernel: str) -> Tensor:
    """Return [side, I] weights, each row summing to 1, for the middle `side` of the `resized` that I samples become.

    Args:
        indices_I: 0, 1, … of the samples.
    """
    scale = (indices_I[-1] + 1) / resized
    places_S1 = torch.arange(side, device=indices_I.device, dtype=indices_I.dtype)[:, None] + 0.5
    if isinstance(resized, Tensor):
        places_S1 = places_S1 + torch.div(resized - side, 2, rounding_mode="floor")
    weights_SI = KERNELS[kernel]((indices_I + 0.5 - places_S1 * scale).abs() / scale.clamp(min=1))
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
