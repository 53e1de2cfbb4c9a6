"""Features of encoders are kept, and found again only where nothing that makes them has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from fuseline.inputs.base import Reader
from fuseline.inputs.text import TextReader
from fuseline.models.member import FusionModel
from fuseline.training import features
from fuseline.training.examples import Collator, Examples
from fuseline.training.features import encode
from fuseline.training.modalities import build_modalities
from fuseline.training.session import encode_still

Read, Build = Callable[..., Examples], Callable[..., FusionModel]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Begin with an empty cache, and note how many rows each run of an encoder has."""
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    noted: list[int] = []
    plain = features._encode

    def count(model: FusionModel, modality: str, examples: Examples, collate: Collator) -> features.Floats:
        noted.append(len(examples))
        return plain(model, modality, examples, collate)

    monkeypatch.setattr(features, "_encode", count)
    return noted


@pytest.fixture
def collate(readers: dict[str, Reader]) -> Collator:
    return Collator(readers, 3)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_features_are_found_again_file_by_file(
    modality: str, read: Read, build: Build, expert: Callable[..., Any], collate: Collator, runs: list[int]
) -> None:
    model, rows = build(expert(modality)), read("train")
    there = rows.present()[modality]
    first = encode(model, modality, rows, collate)
    assert runs == [there[:12].sum(), there[12:].sum()]
    again = encode(build(expert(modality)), modality, read("train"), collate)
    assert len(runs) == 2
    np.testing.assert_array_equal(first.whole(), again.whole())
    expected = features._encode(model, modality, read("train", only=[modality]), collate)
    np.testing.assert_allclose(first.whole()[there], expected, atol=1e-5)
    one_by_one = [first[number] for number in np.flatnonzero(there)]
    np.testing.assert_array_equal(first.whole()[there], one_by_one)


def test_absent_rows_have_zeros(read: Read, build: Build, expert: Callable[..., Any], collate: Collator) -> None:
    rows = read("train")
    found = encode(build(expert("image")), "image", rows, collate)
    assert (~found.whole().any(1)).tolist() == (~rows.present()["image"]).tolist()
    assert [found[number] is None for number in range(24)] == (~rows.present()["image"]).tolist()


def test_members_that_have_one_encoder_share_features_whatever_else_they_look_at(
    prepared: Path, encoders: Any, build: Build, expert: Callable[..., Any], fusion: Callable[..., Any],
    collate: Collator, runs: list[int],
) -> None:  # fmt: skip
    for recipe in (expert("text"), fusion()):
        seen = build_modalities(encoders, recipe.modalities)
        encode(build(recipe), "text", Examples(prepared / "train", seen, only=list(seen)), collate)
    assert len(runs) == 2


def test_a_further_file_costs_its_own_rows(
    read: Read, build: Build, expert: Callable[..., Any], collate: Collator, runs: list[int],
    prepared: Path, tmp_path: Path, modalities: Any,
) -> None:  # fmt: skip
    first, second = sorted((prepared / "train").iterdir())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / first.name).write_bytes(first.read_bytes())
    encode(build(expert("text")), "text", Examples(tmp_path / "train", modalities), collate)
    (tmp_path / "train" / second.name).write_bytes(second.read_bytes())
    encode(build(expert("text")), "text", Examples(tmp_path / "train", modalities), collate)
    texts = [pq.read_table(file)["text"].drop_null() for file in (first, second)]
    assert runs == [len(each) for each in texts]


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
    encode(model, "text", rows, collate)
    change(model, collate, rows)
    encode(model, "text", rows, collate)
    assert len(runs) == 4


def test_a_head_makes_no_difference(
    read: Read, build: Build, expert: Callable[..., Any], collate: Collator, runs: list[int]
) -> None:
    model = build(expert("text"))
    encode(model, "text", read("val"), collate)
    torch.nn.init.ones_(model.head.weight)
    encode(model, "text", read("val"), collate)
    assert len(runs) == 2


def test_a_text_s_features_are_not_kept_where_they_are_a_matter_of_its_picture(
    read: Read, build: Build, fusion: Callable[..., Any], encoders: Any, runs: list[int]
) -> None:
    still = {
        "tuning": {"text": "frozen", "image": "frozen"},
        "learning_rate": {"text": None, "image": None, "head": 1e-2},
    }
    for layout, kept in ((False, {"text", "image"}), (True, {"image"})):
        recipe = fusion(layout=layout, **still)
        readers = {n: m.reader for n, m in build_modalities(encoders, ["text", "image"], layout=layout).items()}
        assert set(encode_still(build(recipe), recipe, Collator(readers, 3), [read("val")])) == kept
    with pytest.raises(AssertionError, match="with layout, a text's vector is a matter of its picture too"):
        encode(build(recipe), "text", read("val"), Collator(readers, 3))
