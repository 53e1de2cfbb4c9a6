"""Changes of test rows, to see what a model loses by them; what is drawn follows from the row and the seed alone.

Texts keep their length and their words' places, so that tags of words stay true.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from fuseline.config import Disturb
from fuseline.inputs.audio import Wave
from fuseline.inputs.boxes import Placed
from fuseline.inputs.image import Picture
from fuseline.training.examples import Change

WHITE = 255


def build_disturbances(how: Disturb, modalities: Sequence[str]) -> Mapping[str, Change]:
    """Return by modality the change of an item by a drawn number, of those modalities that it changes and are used."""
    changes: dict[str, Change] = {}
    if how.typos is not None:
        changes["text"] = in_place(partial(misspell, share=how.typos))
    elif how.case is not None:
        changes["text"] = in_place(partial(write_in_case, case=how.case))
    else:
        changes["image"] = partial(disturb_picture, how=how)
    if how.noise is not None:
        changes["audio"] = partial(add_noise, noise=how.noise)
    return {name: change for name, change in changes.items() if name in modalities}


def in_place(change: Callable[[str, int], str]) -> Change:
    """Change a text, whether or not it comes with its places in a picture; its length stays, and so they hold."""

    def changed(item: str | Placed, draw: int) -> str | Placed:
        return item._replace(text=change(item.text, draw)) if isinstance(item, Placed) else change(item, draw)

    return changed


def misspell(text: str, draw: int, share: float) -> str:
    """Let letters change places with the next one of their word."""
    draws, letters, at = random.Random(draw), list(text), 0  # noqa: S311  # no secret
    while at + 1 < len(letters):
        if letters[at].isalpha() and letters[at + 1].isalpha() and draws.random() < share:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
            at += 1  # a letter moves once
        at += 1
    return "".join(letters)


def write_in_case(text: str, draw: int, case: str) -> str:
    """Write all letters in upper or lower case, but for those that would become several."""
    changed = (letter.upper() if case == "upper" else letter.lower() for letter in text)
    return "".join(new if len(new) == 1 else old for old, new in zip(text, changed, strict=True))


def disturb_picture(picture: Picture, draw: int, how: Disturb) -> Picture:
    """Blur, turn or add noise to a picture, uint8 [H, W, 3], or to all of a row's, [P, H, W, 3], alike."""
    draws = np.random.default_rng(draw)
    if how.noise is not None:
        noisy = picture + draws.normal(0, how.noise * WHITE, picture.shape)
        return noisy.round().clip(0, WHITE).astype(np.uint8)
    pixels: Tensor = torch.from_numpy(picture).movedim(-1, -3)
    if how.blur is not None:
        sigma = how.blur * min(picture.shape[-3:-1])
        pixels = functional.gaussian_blur(pixels, [2 * int(np.ceil(2 * sigma)) + 1] * 2, [sigma] * 2)
    elif how.rotate is not None:
        angle = how.rotate * draws.choice([-1, 1])
        pixels = functional.rotate(pixels, float(angle), functional.InterpolationMode.BILINEAR, fill=WHITE)
    return pixels.movedim(-3, -1).contiguous().numpy()


def add_noise(wave: Wave, draw: int, noise: float) -> Wave:
    """Add noise to a recording, as a share of its own standard deviation."""
    draws = np.random.default_rng(draw)
    noisy: Wave = (wave + noise * wave.std() * draws.standard_normal(len(wave))).astype(np.float32)
    return noisy
