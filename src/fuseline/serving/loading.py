"""A bundle, loaded and tried out, and the look-out for the next one."""

from __future__ import annotations

import hashlib
import io
import os
import wave
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuseline.errors import BundleError
from fuseline.records import Bundle
from fuseline.runtime.bundle import CARD, parse_card
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.session import describe_device, providers_used
from fuseline.serving.settings import Settings

Key = tuple[str, int, int]
"""Where a link leads, and which file stands there: another one as soon as the bundle is."""


@dataclass(frozen=True)
class Loaded:
    """A bundle in service."""

    predictor: Predictor
    digest: str
    """sha256 of bundle.json, which has those of all other files."""
    since: str


def load(folder: Path, settings: Settings) -> Loaded:
    """Verify and load a bundle, and have it answer one row.

    Raises:
        BundleError: it is incomplete, altered, cannot be loaded, or does not answer.
    """
    place = folder.resolve()  # a link may be swapped meanwhile: one bundle is read to the end
    predictor = Predictor(place, settings.providers, settings.threads)
    [answer] = predictor.answer([sample(predictor.bundle.modalities)])
    if not np.isfinite(answer.probabilities).all():
        raise BundleError(f"{place}: the graph answers with what is no number; export it again")
    return Loaded(predictor, _digest(place / CARD, predictor.bundle), datetime.now(UTC).isoformat(timespec="seconds"))


def _digest(card: Path, loaded: Bundle) -> str:
    data = card.read_bytes()
    if parse_card(data, card) != loaded:
        raise BundleError(f"{card}: another bundle was written here while this one was loaded; try again")
    return hashlib.sha256(data).hexdigest()


def sample(modalities: list[str]) -> Row:
    """Make a row that has everything, for a try."""
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(picture, "PNG")
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    values: dict[str, Any] = {"text": "a text", "image": picture.getvalue(), "audio": sound.getvalue()}
    return Row(**{name: values[name] for name in modalities}, where="the sample row")


def key_of(folder: Path) -> Key | None:
    """Tell apart what stands at a place; None where there is no bundle now."""
    place = Path(os.path.realpath(folder))  # resolve() raises RuntimeError where links go in a circle
    try:
        found = (place / CARD).stat()
    except OSError:
        return None
    return str(place), found.st_ino, found.st_mtime_ns


def describe(loaded: Loaded) -> dict[str, Any]:
    """Make the card that /v1/model shows."""
    bundle = loaded.predictor.bundle
    told = bundle.model_dump(mode="json", include={
        "name", "task", "labels", "modalities", "members", "max_tokens", "inputs", "outputs", "scheme", "thresholds",
        "versions", "data", "code", "format",
    })  # fmt: skip
    return told | {
        "digest": loaded.digest, "loaded": loaded.since,
        "several_pictures": loaded.predictor.several, "boxes": loaded.predictor.layout,
        "device": describe_device(providers_used(loaded.predictor.session)),
    }  # fmt: skip
