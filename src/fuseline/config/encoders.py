"""What each modality is encoded by: section encoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fuseline.config.base import Count, Positive, Section


def _check_pinned(name: str, revision: str | None) -> None:
    if name.startswith("package:"):
        if revision is not None:
            raise ValueError("a package's version stands in requirements.lock; set revision to null")
    elif not revision:
        raise ValueError(
            f"set revision to the commit of {name!r} on the hub or, for a local folder, to the digest of its "
            "files: else the same params give another model some day"
        )


class TextEncoder(Section):
    """The text side, the same for all members."""

    name: str
    """Hub id, local folder, or `package:NAME` for weights inside an installed Python package; an encoder such as BERT
    or a decoder such as GPT, not both in one such as T5."""
    revision: str | None
    """What pins a name that says too little: a hub id's commit, or the digest of a local folder's files (a wrong
    one is answered with the right one). null for a package, which requirements.lock pins."""
    max_length: Count
    """Tokens per text, special ones counted; longer texts are cut."""
    pooling: Literal["mean", "first", "last"]
    """How token states become one vector: mean, first (BERT's [CLS]) or last token (GPT)."""
    freeze_embeddings: bool
    """Leave the token embeddings as loaded: half of a small encoder's weights, and few rows to tune them on."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


class ImageEncoder(Section):
    """The picture side, the same for all members."""

    name: str
    """A classifier of `torchvision.models`, for example resnet18 or resnet50."""
    weights: str | None
    """A torchvision weights name such as IMAGENET1K_V2, `DEFAULT`, or null to start from nothing."""
    size: Annotated[int, Field(ge=16)] | None
    """Side of the square, in pixels, that every picture is resized to. null takes the weights' own way: the shorter
    side is brought to their size, and the middle cut out."""
    blocks: Annotated[list[Count], Field(min_length=4, max_length=4)] | None
    """Residual blocks per stage, for a ResNet shallower or deeper than the named one; null keeps its own."""
    several: bool
    """Whether rows may have several pictures: their vector is the mean over them, their parts are those of all. The
    graph's `pixels` then has an axis for a row's pictures, and `picture_counts` says how many count."""

    @model_validator(mode="after")
    def _weights_fit_the_blocks(self) -> Self:
        if self.blocks is not None and self.weights is not None:
            raise ValueError("weights belong to the named network; with blocks set, weights must be null")
        if self.size is None and self.weights is None:
            raise ValueError("size: null takes the size of the weights, and weights is null; set one of them")
        return self


class ImageTransformer(Section):
    """A Hugging Face vision model: ViT, Swin, ConvNeXt, DINOv2, the picture side of CLIP or SigLIP, and others."""

    name: str
    """Hub id, local folder, or `package:NAME`, as for texts."""
    revision: str | None
    """As for texts."""
    size: Annotated[int, Field(ge=16)] | None
    """Side of the square, in pixels, that every picture is resized to; null takes the model's own processor's way,
    middle cut included. Mean and deviation are the processor's either way."""
    several: bool
    """As for torchvision's."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


def _kind_of_image(value: Any) -> str:
    hub = isinstance(value, ImageTransformer) or (isinstance(value, dict) and "revision" in value)
    return "transformer" if hub else "torchvision"


AnyImageEncoder = Annotated[
    Annotated[ImageEncoder, Tag("torchvision")] | Annotated[ImageTransformer, Tag("transformer")],
    Discriminator(_kind_of_image),
]
"""The picture side, the same for all members: with a `revision` a model of Hugging Face, else one of torchvision."""


class AudioCnn(Section):
    """A log-mel spectrogram under a small convolutional network, trained from nothing."""

    rate: Annotated[int, Field(ge=1000)]
    """Samples per second that recordings are brought to."""
    max_seconds: Positive
    """Longer recordings are cut."""
    mels: Annotated[int, Field(ge=8)]
    """Mel bands."""
    window_ms: Positive
    """Length of a frame."""
    hop_ms: Positive
    """From one frame to the next."""
    widths: Annotated[list[Count], Field(min_length=1)]
    """Channels of each block; each block halves bands and frames."""


class AudioTransformer(Section):
    """A Hugging Face audio encoder: wav2vec 2.0 and its kin, or the Audio Spectrogram Transformer."""

    name: str
    """Hub id, local folder, or `package:NAME`, as for texts."""
    revision: str | None
    """As for texts."""
    max_seconds: Positive
    """Longer recordings are cut. The rate is the model's own."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


def _kind_of_audio(value: Any) -> str:
    return (
        "transformer" if isinstance(value, AudioTransformer) or (isinstance(value, dict) and "name" in value) else "cnn"
    )


AudioEncoder = Annotated[
    Annotated[AudioCnn, Tag("cnn")] | Annotated[AudioTransformer, Tag("transformer")], Discriminator(_kind_of_audio)
]
"""The sound side, the same for all members: with a `name` a pretrained model, else a network from nothing."""


class Encoders(Section):
    """One encoder per modality; null where no member uses it."""

    text: TextEncoder | None
    image: AnyImageEncoder | None
    audio: AudioEncoder | None
