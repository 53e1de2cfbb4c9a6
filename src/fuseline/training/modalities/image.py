"""Pictures: classifiers of torchvision, and Hugging Face's vision models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor

from fuseline import cache, config
from fuseline.errors import ModelError
from fuseline.inputs.image import ImageReader, Picture, Square, decode_image
from fuseline.models.encoders.base import Encoder
from fuseline.models.preprocess import resize
from fuseline.training.augment import build_change, change_picture, draw_of
from fuseline.training.modalities.base import FileModality
from fuseline.training.modalities.hub import find_model, load_weights

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
INCEPTIONS = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class View:
    """How a model wants its pictures: the arguments of Preprocess."""

    side: int
    mean: list[float]
    std: list[float]
    shorter: int | None = None
    kernel: str = "bilinear"

    @property
    def kept(self) -> int:
        """Side of the square that is kept in the cache: what the middle is cut from, where it is cut."""
        return self.shorter or self.side


class Image(FileModality):
    """A picture encoder; pictures are kept resized to a square, of rows with several as a list of squares."""

    name = "image"
    settings: config.ImageEncoder | config.ImageTransformer

    def __init__(self, settings: config.ImageEncoder | config.ImageTransformer) -> None:
        super().__init__(settings)
        self.view = view_torchvision(settings) if isinstance(settings, config.ImageEncoder) else view_hub(settings)

    def build_reader(self) -> ImageReader:
        square = Square(self.view.kept, self.view.shorter, self.view.kernel)
        return ImageReader(square if self.settings.several else None)

    def architecture(self) -> dict[str, Any]:
        view, settings = asdict(self.view), self.settings
        several = {"several": True} if settings.several else {}
        if isinstance(settings, config.ImageEncoder):
            return {"kind": "torchvision", "name": settings.name, "blocks": settings.blocks, **view, **several}
        found = load_config(settings)
        architecture = {**found.to_diff_dict(), "model_type": found.model_type}
        return {"kind": "hugging-face-image", "architecture": architecture, "preprocess": view, **several}

    def load(self, encoder: Encoder) -> None:
        backbone: Any = encoder.backbone
        if isinstance(self.settings, config.ImageTransformer):
            load_weights(backbone, "image", self.settings.name, self.settings.revision)
        elif self.settings.weights is not None:
            _load_image(backbone, self.settings)

    def describe(self) -> str:
        code = cache.code_of("inputs/image", "models/preprocess", "training/modalities/image")
        how = f"{self.view.kept} {self.view.shorter is not None} {self.view.kernel}"
        how += " several" if self.settings.several else ""
        return f"side {how} {code} {cache.versions_of('pillow', 'torch')}"

    def keep(self, value: bytes) -> bytes:
        return to_square(value, self.view.kept, self.view.shorter, self.view.kernel).tobytes()

    @property
    def kept_type(self) -> pa.DataType:
        return pa.list_(pa.binary()) if self.settings.several else pa.binary()

    def keep_all(self, values: Sequence[bytes]) -> Any:
        return [self.keep(value) for value in values] if self.settings.several else super().keep_all(values)

    def restore(self, kept: Any) -> Picture:
        side, several = self.view.kept, self.settings.several
        pixels = np.frombuffer(bytearray(b"".join(kept) if several else kept), np.uint8)
        return pixels.reshape(-1, side, side, 3) if several else pixels.reshape(side, side, 3)

    def lengths(self, cells: pa.ChunkedArray) -> NDArray[np.int64]:
        if not self.settings.several:
            return super().lengths(cells)
        return pc.list_value_length(cells).fill_null(0).to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    @property
    def kept_bytes(self) -> int:
        return 3 * self.view.kept**2

    def build_change(self, augment: config.Augment) -> Callable[[Picture, int], Picture] | None:
        if augment.image is None:
            return None
        change = build_change(augment.image)

        def change_one(picture: Picture, draw: int) -> Picture:
            return change_picture(torch.from_numpy(picture), change, draw).numpy()

        def change_each(pictures: Picture, draw: int) -> Picture:
            """Change each by a draw of its own; a row's first as the only one of a row."""
            draws = [draw, *(draw_of(draw, number) for number in range(1, len(pictures)))]
            return np.stack([change_one(*pair) for pair in zip(pictures, draws, strict=True)])

        return change_each if self.settings.several else change_one


def to_square(data: bytes, side: int, shorter: int | None = None, kernel: str = "bilinear") -> Picture:
    """Decode and resize with the graph's own arithmetic, rounded to grey levels: uint8 [side, side, 3].

    Resized once more by the graph, such a picture stays as it is, but for the middle that is cut out of it.
    """
    pixels_13HW = torch.from_numpy(decode_image(data).copy()).permute(2, 0, 1)[None].float()
    square_WW3: Tensor = resize(pixels_13HW, side, shorter, kernel)[0].permute(1, 2, 0)
    return square_WW3.round().clamp(0, 255).to(torch.uint8).numpy()


def view_torchvision(image: config.ImageEncoder) -> View:
    """Return how a torchvision model wants its pictures: as its weights say, or squeezed into the square of `size`."""
    if image.weights is None:
        assert image.size is not None
        return View(image.size, IMAGENET_MEAN, IMAGENET_STD)
    way = _image_weights(image).transforms()
    mean, std = list(way.mean), list(way.std)
    if image.name in INCEPTIONS:  # torchvision turns its own statistics into these inside the pretrained network
        mean, std = [0.5] * 3, [0.5] * 3
    if image.size is not None:
        return View(image.size, mean, std)
    return View(way.crop_size[0], mean, std, way.resize_size[0], way.interpolation.value)


def view_hub(image: config.ImageTransformer) -> View:
    """Return how a Hugging Face model wants its pictures, as its processor says.

    Raises:
        ModelError: no processor can be loaded, or it does what the graph cannot.
    """
    try:
        way = AutoImageProcessor.from_pretrained(**find_model("image", image.name, image.revision), use_fast=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"encoders.image.name: no preprocessor_config.json could be loaded from {image.name!r}: {error}"
        ) from error
    mean, std = (list(way.image_mean), list(way.image_std)) if way.do_normalize else ([0.0] * 3, [1.0] * 3)
    kernel = {2: "bilinear", 3: "bicubic"}.get(2 if way.resample is None else int(way.resample))
    if kernel is None or abs(way.rescale_factor * 255 - 1) > 1e-6:
        raise ModelError(
            f"encoders.image.name: the processor of {image.name!r} resamples by {way.resample} and scales by "
            f"{way.rescale_factor}; expected bilinear (2) or bicubic (3), and 1 / 255"
        )
    if image.size is not None:
        return View(image.size, mean, std, None, kernel)
    side, shorter = _sides_of(way, image.name)
    return View(side, mean, std, shorter, kernel)


def _sides_of(way: Any, name: str) -> tuple[int, int | None]:
    """Return side and shorter side, as `resize` takes them."""
    size, cut = way.size, getattr(way, "crop_size", None) if getattr(way, "do_center_crop", False) else None
    if size.shortest_edge is None and size.height == size.width and cut is None:
        return int(size.height), None
    if size.shortest_edge is None:
        raise ModelError(
            f"encoders.image.size: the processor of {name!r} resizes to {dict(size)}; expected a square or the "
            "shortest edge: set size"
        )
    if cut is not None and (cut.height != cut.width or cut.height > size.shortest_edge):
        raise ModelError(
            f"encoders.image.size: the processor of {name!r} cuts {cut.height} x {cut.width} out of pictures of "
            f"{size.shortest_edge}; expected a square that fits in: set size"
        )
    share = getattr(way, "crop_pct", None)
    if share is not None:  # ConvNeXt: small pictures are cut, large ones squeezed
        edge = int(size.shortest_edge)
        return (edge, None) if edge >= 384 else (edge, int(edge / share))
    return int(size.shortest_edge if cut is None else cut.height), int(size.shortest_edge)


def load_config(image: config.ImageTransformer) -> Any:
    """Load a vision model's config; of a model on pictures and texts, that of its picture side.

    Raises:
        ModelError: it cannot be loaded, or is no vision model.
    """
    try:
        found = AutoConfig.from_pretrained(**find_model("image", image.name, image.revision))
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.image.name: {image.name!r} cannot be loaded: {error}") from error
    found = getattr(found, "vision_config", found)
    if not (hasattr(found, "image_size") or hasattr(found, "hidden_sizes")) or not hasattr(found, "num_channels"):
        raise ModelError(f"encoders.image.name: {image.name!r} is a {found.model_type}; expected a vision model")
    return found


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
