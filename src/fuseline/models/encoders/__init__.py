"""Encoders, by kind: what a checkpoint says of each is enough to build it again."""

from __future__ import annotations

from typing import Any

from fuseline.models.encoders.audio import AudioCnn, AudioTransformer
from fuseline.models.encoders.base import Encoder
from fuseline.models.encoders.image import ImageEncoder, ImageTransformer
from fuseline.models.encoders.text import TextEncoder

KINDS: dict[str, type[Encoder]] = {
    "hugging-face-text": TextEncoder,
    "torchvision": ImageEncoder,
    "hugging-face-image": ImageTransformer,
    "log-mel-cnn": AudioCnn,
    "hugging-face-audio": AudioTransformer,
}


def build_encoder(kind: str, **options: Any) -> Encoder:
    """Build an encoder, its weights drawn anew.

    Args:
        kind: one of KINDS.
        options: those of its class.
    """
    return KINDS[kind](**options)
