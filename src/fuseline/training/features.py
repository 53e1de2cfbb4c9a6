"""What encoders make of examples, kept: an encoder that stays as it is sees each file of examples once.

Shape letters: N examples, R rows of one file, D feature size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuseline import cache
from fuseline.inputs import own_inputs
from fuseline.models.encoders.base import Encoded
from fuseline.models.member import FusionModel
from fuseline.models.units import by_word, word_states
from fuseline.progress import Progress
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import run_over

Floats = NDArray[np.float32]


class Features:
    """Vectors of one modality, memory-mapped.

    Args:
        rows: how many examples there are.
        parts: numbers of the examples that have the modality, and their vectors [R, D], file by file.
        size: D.
    """

    def __init__(self, rows: int, parts: Sequence[tuple[NDArray[np.int64], Floats]], size: int) -> None:
        self.size = size
        self._parts = parts
        self._part_N, self._row_N = np.full(rows, -1), np.zeros(rows, np.int64)
        for number, (at, _) in enumerate(parts):
            self._part_N[at], self._row_N[at] = number, np.arange(len(at))

    def __getitem__(self, number: int) -> Floats | None:
        """Return the vector [D] of an example; None where the modality is missing."""
        part = self._part_N[number]
        return None if part < 0 else self._parts[part][1][self._row_N[number]]

    def whole(self) -> Floats:
        """Return all vectors [N, D] in memory, zeros where the modality is missing."""
        found = np.zeros((len(self._part_N), self.size), np.float32)
        for at, vectors_RD in self._parts:
            found[at] = vectors_RD
        return found


def encode(model: FusionModel, modality: str, examples: Examples, collate: Collator) -> Features:
    """Return what a member's encoder makes of one modality of the examples.

    It is kept in the cache, file by file, and found again by whatever has the same encoder: rows that are new alone
    are encoded.

    Args:
        collate: makes the encoder's inputs.
    """
    assert modality != "text" or not model.config.layout, "with layout, a text's vector is a matter of its picture too"
    how, parts = _describe_encoder(model, modality, collate), []
    files = list(examples.by_file(modality))
    progress = Progress(f"encode {modality}", len(files))
    for done, (digest, at, part) in enumerate(files, start=1):
        path = cache.fetch("features", [how, digest], partial(_write, model, modality, part, collate))
        parts.append((at, np.load(path, mmap_mode="r", allow_pickle=False)))
        progress.at(done)
    return Features(len(examples), parts, int(model.encoders[modality].size))  # type: ignore[arg-type]


def _write(model: FusionModel, modality: str, examples: Examples, collate: Collator, target: Path) -> None:
    with target.open("wb") as file:
        np.save(file, _encode(model, modality, examples, collate))


def _encode(model: FusionModel, modality: str, examples: Examples, collate: Collator) -> Floats:
    def vector(batch: dict[str, Tensor]) -> Tensor:
        vector_BD: Tensor = model.encoders[modality](**own_inputs(modality, batch)).vector_BD
        return vector_BD

    return run_over(model, examples, collate.only(modality), vector)


def encode_words(model: FusionModel, examples: Examples, collate: Collator) -> Floats:
    """Return what a member's text encoder makes of each word of the examples, row after row; zeros for one not seen."""

    def states(batch: dict[str, Tensor]) -> Tensor:
        encoded: Encoded = model.encoders["text"](**own_inputs("text", batch))
        return by_word(word_states(encoded, batch["words"]).vector_BD, batch["words"])

    return run_over(model, examples, collate.only("text"), states)


def _describe_encoder(model: FusionModel, modality: str, collate: Collator) -> str:
    """Say what, besides the examples, features depend on."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.encoders[modality].state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    parts = {
        "weights": weights.hexdigest(),
        "config": model.config.encoders[modality],
        "reader": collate.only(modality).describe(),
        "device": str(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "code": cache.code_of("inputs", "models/encoders", "models/preprocess", "models/spectrogram",
                              "training/examples", "training/features", "training/predict"),
        "versions": cache.versions_of("torch", "torchvision", "transformers", "tokenizers"),
    }  # fmt: skip
    return json.dumps(parts, sort_keys=True, default=str)
