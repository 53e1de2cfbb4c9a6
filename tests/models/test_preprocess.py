"""The resize inside the graph is Pillow's and torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fuseline.models.preprocess import Preprocess, middle_of, resize

SIZES = [(100, 80), (31, 97), (48, 48), (20, 200), (7, 5), (1, 1), (333, 47)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_equals_torchs_antialiased_interpolation(height: int, width: int) -> None:
    pixels = to_tensor(noise(height, width))
    expected = F.interpolate(pixels, (48, 48), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(resize(pixels, 48), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_equals_pillows_within_one_grey_level(height: int, width: int) -> None:
    pixels = noise(height, width)
    expected = np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BILINEAR), dtype=np.float32)
    found = resize(to_tensor(pixels), 48)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1.0


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    pixels = to_tensor(noise(32, 32))
    assert torch.equal(resize(pixels, 32), pixels)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 4000])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_every_row_of_the_filter_sums_to_one(length: int, kernel: str) -> None:
    weights = middle_of(torch.arange(length, dtype=torch.float32), 32, 32, kernel)
    assert weights.shape == (32, length)
    torch.testing.assert_close(weights.sum(1), torch.ones(32))


def test_preprocessing_normalises_by_mean_and_deviation() -> None:
    white = torch.full((2, 9, 5, 3), 255, dtype=torch.uint8)
    found = Preprocess(4, mean=[0.5, 0.0, 1.0], std=[0.5, 0.25, 1.0])(white)
    assert found.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found[1, :, 2, 2], torch.tensor([1.0, 4.0, 0.0]))
