"""Features of encoders are kept, and found again only where nothing that makes them has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from fuseline.inputs.base import Reader
from fuseline.inputs.text import TextReader
from fuseline.models.member import FusionModel
from fuseline.training import predict
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import encode

Read, Build = Callable[..., Examples], Callable[..., FusionModel]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Begin with an empty cache, and note how many rows each run of an encoder has."""
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    noted: list[int] = []
    plain = predict._encode

    def count(model: FusionModel, examples: Examples, collate: Collator) -> predict.Floats:
        noted.append(len(examples))
        return plain(model, examples, collate)

    monkeypatch.setattr(predict, "_encode", count)
    return noted


@pytest.fixture
def collate(readers: dict[str, Reader]) -> Collator:
    return Collator(readers, 3)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_features_are_found_again_file_by_file(
    modality: str, read: Read, build: Build, expert: Callable[..., Any], collate: Collator, runs: list[int]
) -> None:
    model, rows = build(expert(modality)), read("train")
    first = encode(model, rows, collate)
    assert runs == [12, 12]
    again = encode(build(expert(modality)), read("train"), collate)
    assert runs == [12, 12]
    assert first.shape[0] == 24
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, predict._encode(model, rows, collate), atol=1e-5)


def test_absent_rows_have_zeros(read: Read, build: Build, expert: Callable[..., Any], collate: Collator) -> None:
    rows = read("train")
    features = encode(build(expert("image")), rows, collate)
    assert (~features.any(1)).tolist() == (~rows.present()["image"]).tolist()


def other_weights(model: FusionModel, collate: Collator, rows: Examples) -> None:
    next(model.encoders["text"].parameters()).data.view(-1)[0] += 1


def other_pooling(model: FusionModel, collate: Collator, rows: Examples) -> None:
    model.config.encoders = {"text": {**model.config.encoders["text"], "pooling": "first"}}


def other_tokens(model: FusionModel, collate: Collator, rows: Examples) -> None:
    tokenizer = Tokenizer.from_str(collate.readers["text"].describe())
    tokenizer.enable_truncation(4)
    collate.readers = {**collate.readers, "text": TextReader(tokenizer)}


def fewer_rows(model: FusionModel, collate: Collator, rows: Examples) -> None:
    rows.thin(11)


@pytest.mark.parametrize(
    "change", [other_weights, other_pooling, other_tokens, fewer_rows], ids=lambda one: one.__name__
)
def test_features_are_made_anew_where_something_changed(
    change: Callable[..., None],
    read: Read,
    build: Build,
    expert: Callable[..., Any],
    collate: Collator,
    runs: list[int],
) -> None:
    model, rows = build(expert("text")), read("train")
    encode(model, rows, collate)
    change(model, collate, rows)
    encode(model, rows, collate)
    assert len(runs) == 4


def test_a_head_makes_no_difference(
    read: Read, build: Build, expert: Callable[..., Any], collate: Collator, runs: list[int]
) -> None:
    model = build(expert("text"))
    encode(model, read("val"), collate)
    torch.nn.init.ones_(model.head.weight)
    encode(model, read("val"), collate)
    assert len(runs) == 2
