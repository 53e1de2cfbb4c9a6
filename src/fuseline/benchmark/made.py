"""Rows that are made up where none are given: pictures and recordings of a size, texts of a length, by a seed."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fuseline.inputs.image import COUNTS
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Row

COARSE = 8
"""Pixels of the noise that a picture is drawn up from, so that it packs and decodes as a photograph does."""


def make_rows(folder: Path, count: int, pixels: int, words: int, seconds: float, seed: int) -> list[Row]:
    """Make rows that have every modality of a bundle.

    Args:
        pixels: of the sides of pictures.
        words: of a text, each one token of the bundle's vocabulary or a few.
        seconds: of a recording.
    """
    bundle, random = read_bundle(folder), np.random.default_rng(seed)
    known = _read_words(folder) if "text" in bundle.modalities else []
    several = COUNTS.name in bundle.inputs
    rows = []
    for _ in range(count):
        picture = _draw(random, pixels) if "image" in bundle.modalities else None
        rows.append(
            Row(
                text=" ".join(random.choice(known, words)) if known else None,
                image=[picture] if several and picture else picture,
                audio=_record(random, seconds, folder) if "audio" in bundle.modalities else None,
            )
        )
    return rows


def _read_words(folder: Path) -> Sequence[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = {tokenizer.decode([number]).strip() for number in sorted(tokenizer.get_vocab().values())}
    return sorted(word for word in found if word.isalpha())


def _draw(random: np.random.Generator, pixels: int) -> bytes:
    noise = random.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((pixels, pixels), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _record(random: np.random.Generator, seconds: float, folder: Path) -> bytes:
    rate = json.loads((folder / "audio.json").read_text(encoding="utf-8"))["rate"]
    samples = random.normal(0, 3000, round(seconds * rate)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()
