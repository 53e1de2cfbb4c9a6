"""Pretrained weights: Hugging Face for text, torchvision for pictures. The only place that fetches any."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import torch
import torchvision
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from fuseline.config import Expert, ImageEncoder, Member, TextEncoder
from fuseline.errors import ModelError
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.records import sha256_of

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
INCEPTIONS = ("googlenet", "inception_v3")


def build_member(recipe: Member, text: TextEncoder, image: ImageEncoder, labels: list[str], seed: int) -> FusionModel:
    """Build a member as it is before training: pretrained encoders, the rest drawn from `seed`.

    Raises:
        ModelError: an encoder is unknown or its weights cannot be loaded.
    """
    torch.manual_seed(seed)
    uses_text, uses_image = "text" in recipe.modalities, "image" in recipe.modalities
    config = FusionConfig(
        modalities=list(recipe.modalities),
        labels=labels,
        text=_text_config(text) if uses_text else None,
        image=_image_config(image) if uses_image else None,
        dropout=recipe.dropout,
        **_fusion_config(recipe),
    )
    member = FusionModel(config)
    if uses_text:
        _check_text(member.encoders["text"].backbone, text)
        _load_text(member.encoders["text"].backbone, text)  # type: ignore[arg-type]
        if text.freeze_embeddings:
            member.encoders["text"].backbone.get_input_embeddings().requires_grad_(False)  # type: ignore[operator, union-attr]
    if uses_image and image.weights is not None:
        _load_image(member.encoders["image"].backbone, image)  # type: ignore[arg-type]
    return member


def _fusion_config(recipe: Member) -> dict[str, Any]:
    if isinstance(recipe, Expert):
        return {}
    return {"fusion": recipe.fusion, "hidden": recipe.hidden, "modality_dropout": recipe.modality_dropout}


def find_text_model(text: TextEncoder) -> dict[str, Any]:
    """Return what Hugging Face's from_pretrained takes to load the text model: name or folder, and revision.

    Raises:
        ModelError: no such package, it carries no safetensors model, or a local folder is not as pinned.
    """
    if text.name.startswith("package:"):
        return {"pretrained_model_name_or_path": _find_in_package(text.name.removeprefix("package:"))}
    if Path(text.name).is_dir():
        found = digest_of(Path(text.name))
        if found != text.revision:
            raise ModelError(
                f"encoders.text.revision: the files in {text.name} have the digest {found}, params.yaml says "
                f"{text.revision}; put the former there if these are the weights you mean"
            )
        return {"pretrained_model_name_or_path": text.name}
    return {"pretrained_model_name_or_path": text.name, "revision": text.revision}


def digest_of(folder: Path) -> str:
    """Digest names and contents of a model folder's files; hidden files and subfolders do not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _find_in_package(name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ModelError(f"encoders.text.name: no installed Python package {name!r}")
    found = sorted(Path(spec.origin).parent.rglob("model.safetensors"))
    if not found:
        raise ModelError(f"encoders.text.name: package {name!r} holds no model.safetensors")
    return str(found[0].parent)


def load_tokenizer(text: TextEncoder) -> Tokenizer:
    """Load the encoder's tokenizer with cutting and padding set: what `tokenizer.json` will hold."""
    source = find_text_model(text)
    try:
        fast = AutoTokenizer.from_pretrained(**source, use_fast=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.text.name: no tokenizer could be loaded from {text.name!r}: {error}") from error
    if not fast.is_fast:
        raise ModelError(f"encoders.text.name: {text.name!r} has no fast tokenizer; a bundle needs tokenizer.json")
    tokenizer: Tokenizer = fast.backend_tokenizer
    pad = fast.pad_token or fast.eos_token or fast.unk_token
    if pad is None:
        raise ModelError(f"encoders.text.name: {text.name!r} has no token to pad with")
    tokenizer.enable_truncation(text.max_length)
    tokenizer.enable_padding(pad_id=fast.convert_tokens_to_ids(pad), pad_token=pad)
    return tokenizer


def _text_config(text: TextEncoder) -> dict[str, Any]:
    try:
        config = AutoConfig.from_pretrained(**find_text_model(text))
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.text.name: {text.name!r} cannot be loaded: {error}") from error
    if not hasattr(config, "hidden_size"):
        raise ModelError(
            f"encoders.text.name: {text.name!r} is a {config.model_type}, which has no hidden_size; "
            "expected a text encoder or decoder"
        )
    return {"architecture": {**config.to_diff_dict(), "model_type": config.model_type}, "pooling": text.pooling}


def _check_text(backbone: Any, text: TextEncoder) -> None:
    """Refuse what would fail at the first text: a decoder without words of its own, positions that run out."""
    if "decoder_input_ids" in inspect.signature(backbone.forward).parameters:
        raise ModelError(
            f"encoders.text.name: {text.name!r} is a {backbone.config.model_type}, encoder and decoder in one; "
            "expected either alone, such as BERT or GPT"
        )
    limit = count_positions(backbone)
    if limit is not None and text.max_length > limit:
        raise ModelError(f"encoders.text.max_length: {text.max_length} exceeds the model's {limit} positions")


def count_positions(backbone: Any) -> int | None:
    """Return how many tokens a text may have; None where the model sets no limit.

    RoBERTa and its kin number positions from padding_idx + 1 on: a table of 514 serves texts of 512.
    """
    positions: int | None = getattr(backbone.config, "max_position_embeddings", None)
    first = max(
        (
            module.padding_idx + 1
            for name, module in backbone.named_modules()
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        ),
        default=0,
    )
    return None if positions is None else positions - first


def _load_text(backbone: nn.Module, text: TextEncoder) -> None:
    try:
        pretrained = AutoModel.from_pretrained(**find_text_model(text), use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.text.name: weights of {text.name!r} cannot be loaded: {error}") from error
    missing = backbone.load_state_dict(pretrained.state_dict(), strict=False).missing_keys
    if missing:
        raise ModelError(f"encoders.text.name: {text.name!r} lacks weights for {', '.join(missing[:3])}")


def _image_config(image: ImageEncoder) -> dict[str, Any]:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if image.weights is not None:
        transforms = _image_weights(image).transforms()
        mean, std = list(transforms.mean), list(transforms.std)
        if image.name in INCEPTIONS:  # torchvision turns its own statistics into these inside the pretrained network
            mean, std = [0.5] * 3, [0.5] * 3
    return {"name": image.name, "side": image.size, "blocks": image.blocks, "mean": mean, "std": std}


def _image_weights(image: ImageEncoder) -> Any:
    """Return torchvision's description of the weights; "DEFAULT" names the best ones it has."""
    assert image.weights is not None
    try:
        return getattr(torchvision.models.get_model_weights(image.name), image.weights)
    except (AttributeError, ValueError) as error:
        raise ModelError(f"encoders.image.weights: {image.name} has no weights {image.weights!r}") from error


def _load_image(backbone: nn.Module, image: ImageEncoder) -> None:
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
