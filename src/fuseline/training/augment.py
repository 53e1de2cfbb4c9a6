"""Random changes of training examples.

Shape letters: B batch, H height, W width, C classes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from fuseline.config import AudioAugment, ImageAugment, TextAugment
from fuseline.inputs.audio import Wave


def draw_of(*parts: int) -> int:
    """Return the same 63 bits for the same parts, on every machine."""
    digest = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def change_text(text: str, augment: TextAugment, draw: int) -> str:
    """Leave words out and let neighbours change places; words are what spaces part."""
    draws, words = random.Random(draw), text.split()  # noqa: S311  # no secret
    kept = [word for word in words if draws.random() >= augment.drop] or draws.choices(words, k=min(1, len(words)))
    at = 0
    while at + 1 < len(kept):
        if draws.random() < augment.swap:
            kept[at], kept[at + 1] = kept[at + 1], kept[at]
            at += 1  # a word moves once
        at += 1
    return " ".join(kept)


def change_picture(picture: Tensor, change: torch.nn.Module, draw: int) -> Tensor:
    """Change a picture by what follows from `draw`, and leave torch's own random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draw)
        changed: Tensor = change(picture)
    return changed


def change_wave(wave: Wave, augment: AudioAugment, draw: int) -> Wave:
    """Play a recording faster or slower, add noise, silence a stretch and take out a band, each by a drawn amount."""
    draws = np.random.default_rng(draw)
    speed, noise, stretch, band = draws.uniform([1 - augment.speed, 0, 0, 0], [1 + augment.speed, 1, 1, 1])
    changed = np.interp(np.arange(0, len(wave) - 0.5, speed), np.arange(len(wave)), wave)
    changed += noise * augment.noise * np.sqrt(np.square(changed).mean()) * draws.standard_normal(len(changed))
    if augment.frequency_mask:
        changed = take_out(changed, band * augment.frequency_mask, draws.uniform())
    silent = int(stretch * augment.time_mask * len(changed))
    start = draws.integers(len(changed) - silent + 1)
    changed[start : start + silent] = 0
    return changed.astype(np.float32)


LOWEST_SHARE = 1 / 64
"""Of half the rate: below it, pitches are not taken out."""


def take_out(wave: NDArray[np.float64], width: float, place: float) -> NDArray[np.float64]:
    """Take a band of pitches out of a recording.

    Args:
        width: of the band, as a share of the octaves from LOWEST_SHARE on.
        place: where it begins, 0 at the bottom to 1 as high as it fits.
    """
    low, high = LOWEST_SHARE ** (1 - place * (1 - width)), LOWEST_SHARE ** (1 - place * (1 - width) - width)
    spectrum = np.fft.rfft(wave)
    spectrum[int(low * len(spectrum)) : int(high * len(spectrum))] = 0
    return np.fft.irfft(spectrum, len(wave))


def build_change(augment: ImageAugment) -> torch.nn.Module:
    """Return a random map of a uint8 [side, side, 3] picture to another; white fills what comes in."""
    steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(augment.flip)]
    if augment.degrees or augment.translate or augment.scale:
        steps.append(
            v2.RandomAffine(
                augment.degrees,
                translate=(augment.translate, augment.translate),
                scale=(1 - augment.scale, 1 + augment.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=255,
            )
        )
    if augment.color:
        steps.append(v2.ColorJitter(augment.color, augment.color, augment.color))
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase, value=255))
    return ChannelsLast(v2.Compose(steps))


class ChannelsLast(torch.nn.Module):
    """Run a channels-first transform on a channels-last picture."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, picture: Tensor) -> Tensor:
        """Map [H, W, 3] to [H, W, 3]."""
        changed: Tensor = self.inner(picture.permute(2, 0, 1))
        return changed.permute(1, 2, 0).contiguous()


def mix_pictures(batch: dict[str, Tensor], alpha: float, modalities: Sequence[str], draw: int) -> dict[str, Tensor]:
    """Lay each picture over another one of the batch, labels alike (mixup, Zhang et al. 2018, eq. 1, a share per row).

    Rows without a picture stay, and are laid over none. Where rows have several, each is laid over one of the other
    row's in turn. Of a row with m modalities, of which the picture is one, the label moves by a share / m: the others
    still speak for the old one.

    Args:
        alpha: both parameters of the Beta distribution that shares are drawn from.
        modalities: the member's.
        draw: what is drawn follows from it.
    """
    rows_P = batch["has_image"].nonzero().squeeze(1)
    if len(rows_P) < 2:
        return batch
    draws = np.random.default_rng(draw)
    other_P = rows_P[torch.from_numpy(draws.permutation(len(rows_P)))]
    kept_P = torch.from_numpy(draws.beta(alpha, alpha, len(rows_P))).float()
    pixels, labels_BC = batch["pixels"].clone(), batch["labels"].clone()
    shares = kept_P.view(-1, *[1] * (pixels.ndim - 1))
    mixed = torch.lerp(_partners(batch, other_P).float(), batch["pixels"][rows_P].float(), shares)
    pixels[rows_P] = mixed.round().to(torch.uint8)
    present_B = torch.stack([batch[f"has_{name}"] for name in modalities]).sum(0)
    moved_P = ((1 - kept_P) / present_B[rows_P]).view(-1, *[1] * (labels_BC.ndim - 1))  # labels may be yes or no each
    labels_BC[rows_P] = (1 - moved_P) * batch["labels"][rows_P] + moved_P * batch["labels"][other_P]
    return batch | {"pixels": pixels, "labels": labels_BC}


def _partners(batch: dict[str, Tensor], other_P: Tensor) -> Tensor:
    """Return for each place of a row's pictures one of the other row's, over and over where these are fewer."""
    pixels = batch["pixels"][other_P]
    if "picture_counts" not in batch:
        return pixels
    turns = torch.arange(pixels.shape[1]) % batch["picture_counts"][other_P][:, None]
    return pixels.take_along_dim(turns[:, :, None, None, None], dim=1)
