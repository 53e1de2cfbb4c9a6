"""Texts: Hugging Face models and their tokenizers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from fuseline import config
from fuseline.errors import ModelError
from fuseline.inputs.text import TextReader
from fuseline.inputs.words import PATTERN
from fuseline.models.encoders.base import Encoder
from fuseline.training.augment import change_text
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.hub import find_model, load_weights


class Text(Modality):
    """A text encoder or decoder."""

    name = "text"
    settings: config.TextEncoder

    def build_reader(self) -> TextReader:
        return TextReader(load_tokenizer(self.settings), PATTERN if self.words else None, self.layout)

    def architecture(self) -> dict[str, Any]:
        return _text_config(self.settings) | ({"layout": True} if self.layout else {})

    def load(self, encoder: Encoder) -> None:
        backbone: Any = encoder.backbone
        _check_text(backbone, self.settings)
        load_weights(backbone, "text", self.settings.name, self.settings.revision)
        if self.settings.freeze_embeddings:
            backbone.get_input_embeddings().requires_grad_(False)

    def lengths(self, cells: pa.ChunkedArray) -> NDArray[np.int64]:
        reader = cast(TextReader, self.reader)
        counts = (reader.count_tokens(chunk.to_pylist()) for chunk in cells.chunks)
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def build_change(self, augment: config.Augment) -> Callable[[str, int], str] | None:
        words = augment.text
        return None if words is None else lambda text, draw: change_text(text, words, draw)


def _find(text: config.TextEncoder) -> dict[str, Any]:
    return find_model("text", text.name, text.revision)


def load_tokenizer(text: config.TextEncoder) -> Tokenizer:
    """Load the encoder's tokenizer with cutting and padding set: what `tokenizer.json` will hold."""
    source = _find(text)
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


def find_mask(text: config.TextEncoder) -> tuple[int, list[int]]:
    """Return the token that stands for a hidden word, and the tokens that are never hidden.

    Raises:
        ModelError: the tokenizer has no mask, as those of decoders.
    """
    tokenizer = AutoTokenizer.from_pretrained(**_find(text), use_fast=True)
    if tokenizer.mask_token_id is None:
        raise ModelError(
            f"encoders.text.name: {text.name!r} has no mask for hidden words; set pretrain.objectives.masked_words and "
            "pretrain.mask to 0"
        )
    return tokenizer.mask_token_id, sorted(set(tokenizer.all_special_ids))


def _text_config(text: config.TextEncoder) -> dict[str, Any]:
    try:
        found = AutoConfig.from_pretrained(**_find(text))
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.text.name: {text.name!r} cannot be loaded: {error}") from error
    if not hasattr(found, "hidden_size"):
        raise ModelError(
            f"encoders.text.name: {text.name!r} is a {found.model_type}, which has no hidden_size; "
            "expected a text encoder or decoder"
        )
    return {
        "kind": "hugging-face-text",
        "architecture": {**found.to_diff_dict(), "model_type": found.model_type},
        "pooling": text.pooling,
    }


def _check_text(backbone: Any, text: config.TextEncoder) -> None:
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
