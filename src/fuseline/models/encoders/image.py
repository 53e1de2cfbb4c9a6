"""Pictures: classifiers of torchvision.models without their last layer, and Hugging Face's vision models.

Shape letters: B batch, P pictures of a row, N pictures, H height, W width, T parts, D feature size.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vision_transformer import Encoder as VisionEncoder
from transformers import AutoConfig, AutoModel

from fuseline.errors import ModelError
from fuseline.models.encoders.base import Encoded, Encoder, mean_over
from fuseline.models.preprocess import Preprocess


class PictureEncoder(Encoder):
    """Encodes rows with a picture each, or, where it is told how many count, with any number of them."""

    several: bool
    """Whether it is for rows with several pictures: what the graph asks of its callers."""

    def forward(self, pixels: Tensor, picture_counts: Tensor | None = None) -> Encoded:  # type: ignore[override]
        """Encode rows.

        Args:
            pixels: uint8 [B, H, W, 3]; with counts, [B, P, H, W, 3].
            picture_counts: int64 [B], how many of each row's P pictures are there.

        Returns:
            With counts, the mean of a row's pictures, zeros where there is none, and the parts of all of them.
        """
        if picture_counts is None:
            return self.encode(pixels)
        places_P = torch.arange(pixels.shape[1], device=pixels.device)
        there_BP = places_P < picture_counts[:, None]
        if self.training and bool(there_BP.any()):  # blank pictures would bend its batch norm
            return gather(spread_over(self.encode(pixels[there_BP]), there_BP), there_BP)
        found = self.encode(pixels.flatten(0, 1))
        return gather([part.unflatten(0, there_BP.shape) for part in found], there_BP)

    @abstractmethod
    def encode(self, pixels: Tensor) -> Encoded:
        """Encode pictures, uint8 [N, H, W, 3]."""


def spread_over(found: Encoded, there_BP: Tensor) -> list[Tensor]:
    """Put what was made of the pictures that are there in their places [B, P, ...], zeros in the others."""
    places = there_BP.nonzero(as_tuple=True)
    return [part.new_zeros(*there_BP.shape, *part.shape[1:]).index_put(places, part) for part in found]


def gather(parts: Sequence[Tensor], there_BP: Tensor) -> Encoded:
    """Make one of each row's pictures: their mean, and their parts one after the other.

    Args:
        parts: vectors [B, P, D], states [B, P, T, D] and mask [B, P, T] of all places.
    """
    vector_BPD, states_BPTD, mask_BPT = parts
    return Encoded(
        mean_over(vector_BPD, there_BP), states_BPTD.flatten(1, 2), (mask_BPT & there_BP[..., None]).flatten(1)
    )


class ImageEncoder(PictureEncoder):
    """A classifier of torchvision.models without its last layer.

    Args:
        name: as torchvision has it.
        blocks: of a ResNet of another depth than the named one.
        several: whether rows may have several pictures.
        view: how pictures are brought to it, as Preprocess takes it but for mean and deviation.
    """

    def __init__(
        self, name: str, side: int, blocks: list[int] | None, mean: list[float], std: list[float],
        several: bool = False, **view: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.several = several
        self.preprocess = Preprocess(side, mean, std, **view)
        self.backbone = build_torchvision(name, side) if blocks is None else build_resnet(name, blocks)
        self.size = drop_classifier(self.backbone, side)
        self.watched = find_parts(self.backbone, side, self.size)

    def encode(self, pixels: Tensor) -> Encoded:
        """Encode pictures, uint8 [N, H, W, 3]; their parts are the cells of the last map, or a ViT's tokens."""
        picture_B3SS = self.preprocess(pixels)
        if self.watched is None:
            return Encoded.whole(self.backbone(picture_B3SS))
        with watching(self.backbone.get_submodule(self.watched)) as seen:
            vector_BD = self.backbone(picture_B3SS)
        return Encoded(vector_BD, seen[-1], torch.ones_like(seen[-1][..., 0], dtype=torch.bool))


class ImageTransformer(PictureEncoder):
    """A Hugging Face vision model, transformer or not: ViT, Swin, ConvNeXt, DINOv2, the picture side of CLIP, ResNet.

    Args:
        architecture: the model's config.
        preprocess: how pictures are brought to it, as Preprocess takes it.
        several: whether rows may have several pictures.
    """

    def __init__(self, architecture: dict[str, Any], preprocess: dict[str, Any], several: bool = False) -> None:
        super().__init__()
        self.several = several
        self.preprocess = Preprocess(**preprocess)
        options = dict(architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        # torch 2.15 cannot export the fused attention of shifted windows with a dynamic batch
        extra = {"attn_implementation": "eager"} if config.model_type.startswith("swin") else {}
        self.backbone = AutoModel.from_config(config, dtype=torch.float32, **extra)
        pooler = getattr(self.backbone, "pooler", None)
        if pooler is not None and hasattr(pooler, "dense"):
            self.backbone.pooler = None  # ViT's and its kin's: weights that no checkpoint holds
        other_size = getattr(config, "image_size", None) not in (None, preprocess["side"])
        stretches = "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if other_size and stretches else {}
        self.size: int = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]

    def encode(self, pixels: Tensor) -> Encoded:
        """Encode pictures, uint8 [N, H, W, 3]; the vector is the model's own summary, or its first token."""
        found = self.backbone(pixel_values=self.preprocess(pixels), **self.options)
        states_BTD = found.last_hidden_state
        if states_BTD.ndim == 4:  # a convolutional network's map
            states_BTD = states_BTD.flatten(2).transpose(1, 2)
        pooled = getattr(found, "pooler_output", None)
        vector_BD = states_BTD[:, 0] if pooled is None else pooled.flatten(1)
        return Encoded(vector_BD, states_BTD, torch.ones_like(states_BTD[..., 0], dtype=torch.bool))


def build_torchvision(name: str, side: int) -> nn.Module:
    """Build a torchvision classifier by name, its weights drawn anew.

    Raises:
        ModelError: torchvision has no such classifier.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ModelError(f"encoders.image.name: torchvision.models has no classifier {name!r}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": side}
    elif name.startswith("maxvit"):
        options = {"input_size": (side, side)}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def build_resnet(name: str, blocks: list[int]) -> nn.Module:
    """Build a ResNet of the named one's kind of block, with another number of blocks per stage."""
    kind = {"resnet18": BasicBlock, "resnet34": BasicBlock, "resnet50": Bottleneck,
            "resnet101": Bottleneck, "resnet152": Bottleneck}.get(name)  # fmt: skip
    if kind is None:
        raise ModelError(f"encoders.image.blocks: fits resnet18 to resnet152, not {name!r}; set it to null")
    model: nn.Module = torchvision.models.ResNet(kind, blocks)
    return model


def drop_classifier(model: nn.Module, side: int) -> int:
    """Put an identity where the last linear layer stands, and return the size of what comes out."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linears:
        parent, _, child = linears[-1].rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return int(probe(model, side).shape[1])


def probe(model: nn.Module, side: int) -> Tensor:
    """Run a network on a black picture, and leave it and torch's random numbers as they were."""
    training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found: Tensor = model.eval()(torch.zeros(1, 3, side, side))
    model.train(training)
    return found


@contextmanager
def watching(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the parts [B, T, D] that a module sees, at each call: cells of a map, or the tokens that it gives."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor], found: Tensor) -> None:
        seen.append(found if found.ndim == 3 else given[0].flatten(2).transpose(1, 2))

    hook = module.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def find_parts(model: nn.Module, side: int, size: int) -> str | None:
    """Name the module that last sees a picture in parts of the vector's size: the pooling, or a ViT's encoder.

    There is none where a network pools without a module, as DenseNet does, or maps what it has pooled to another
    size, as VGG does.
    """
    kinds = (nn.AdaptiveAvgPool2d, VisionEncoder)
    with ExitStack() as stack:
        seen = {
            name: stack.enter_context(watching(module))
            for name, module in model.named_modules()
            if isinstance(module, kinds)
        }
        probe(model, side)
    return next((name for name in reversed(seen) if seen[name] and seen[name][-1].shape[2] == size), None)
