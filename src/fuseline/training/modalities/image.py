"""Pictures: classifiers of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from fuseline import cache, config
from fuseline.errors import ModelError
from fuseline.inputs.image import ImageReader, Picture, decode_image
from fuseline.models.encoders.base import Encoder
from fuseline.models.preprocess import resize
from fuseline.training.augment import build_change, change_picture
from fuseline.training.modalities.base import FileModality

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
INCEPTIONS = ("googlenet", "inception_v3")


class Image(FileModality):
    """A picture encoder; pictures are kept resized to its square."""

    name = "image"
    settings: config.ImageEncoder

    def build_reader(self) -> ImageReader:
        return ImageReader()

    def architecture(self) -> dict[str, Any]:
        return _image_config(self.settings)

    def load(self, encoder: Encoder) -> None:
        if self.settings.weights is not None:
            _load_image(encoder.backbone, self.settings)  # type: ignore[arg-type]

    def describe(self) -> str:
        code = cache.code_of("inputs/image", "models/preprocess", "training/modalities/image")
        return f"side {self.settings.size} {code} {cache.versions_of('pillow', 'torch')}"

    def keep(self, value: bytes) -> bytes:
        return to_square(value, self.settings.size).tobytes()

    def restore(self, kept: bytes) -> Picture:
        return np.frombuffer(bytearray(kept), np.uint8).reshape(self.settings.size, self.settings.size, 3)

    @property
    def kept_bytes(self) -> int:
        return 3 * self.settings.size**2

    def build_change(self, augment: config.Augment) -> Callable[[Picture, int], Picture] | None:
        if augment.image is None:
            return None
        change = build_change(augment.image)
        return lambda picture, draw: change_picture(torch.from_numpy(picture), change, draw).numpy()


def to_square(data: bytes, side: int) -> Picture:
    """Decode and resize with the graph's own arithmetic, rounded to grey levels: uint8 [side, side, 3]."""
    pixels_13HW = torch.from_numpy(decode_image(data).copy()).permute(2, 0, 1)[None].float()
    square_WW3: Tensor = resize(pixels_13HW, side)[0].permute(1, 2, 0)
    return square_WW3.round().clamp(0, 255).to(torch.uint8).numpy()


def _image_config(image: config.ImageEncoder) -> dict[str, Any]:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if image.weights is not None:
        transforms = _image_weights(image).transforms()
        mean, std = list(transforms.mean), list(transforms.std)
        if image.name in INCEPTIONS:  # torchvision turns its own statistics into these inside the pretrained network
            mean, std = [0.5] * 3, [0.5] * 3
    return {
        "kind": "torchvision",
        "name": image.name,
        "side": image.size,
        "blocks": image.blocks,
        "mean": mean,
        "std": std,
    }


def _image_weights(image: config.ImageEncoder) -> Any:
    """Return torchvision's description of the weights; "DEFAULT" names the best ones it has."""
    assert image.weights is not None
    try:
        return getattr(torchvision.models.get_model_weights(image.name), image.weights)
    except (AttributeError, ValueError) as error:
        raise ModelError(f"encoders.image.weights: {image.name} has no weights {image.weights!r}") from error


def _load_image(backbone: nn.Module, image: config.ImageEncoder) -> None:
    """Fetch torchvision's weights, tensors alone, checked against the digest in their name."""
    try:
        state = _image_weights(image).get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ModelError(
            f"encoders.image.weights: {image.weights!r} of {image.name} cannot be fetched: {error}; "
            "set it to null to train from nothing"
        ) from error
    own = backbone.state_dict()
    try:
        missing = backbone.load_state_dict({key: state[key] for key in own if key in state}, strict=False).missing_keys
    except RuntimeError as error:
        raise ModelError(
            f"encoders.image.size: {image.size} does not fit the weights of {image.name}: {error}"
        ) from error
    if missing:
        raise ModelError(f"encoders.image.weights: {image.weights!r} lacks {', '.join(missing[:3])} of {image.name}")
