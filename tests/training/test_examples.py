"""Prepared examples as tensors, and batches of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from fuseline.config import Encoders
from fuseline.data.shards import write_table
from fuseline.errors import FuselineError
from fuseline.inputs import inputs_of
from fuseline.inputs.base import Reader
from fuseline.inputs.image import decode_image
from fuseline.training import examples as module
from fuseline.training.augment import draw_of
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities, image
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.image import to_square

Read = Callable[..., Examples]


def test_a_split_is_read_in_order(read: Read) -> None:
    examples = read("val")
    assert len(examples) == 9
    assert examples.labels.tolist() == [0, 1, 2] * 3
    assert [examples[index]["label"] for index in range(9)] == [0, 1, 2] * 3


def test_lengths_are_tokens_in_means_and_of_what_is_encoded_nothing(read: Read, tokenizer: Tokenizer) -> None:
    rows = read("train")
    tokens = np.array([len(each.ids) for each in map(tokenizer.encode, [text or "" for text in rows.column("text")])])
    assert len(set(tokens)) > 2
    np.testing.assert_allclose(rows.lengths(["text"]), tokens / tokens.mean())
    has_image = rows.present()["image"]
    np.testing.assert_allclose(rows.lengths(["image"]), has_image / has_image.mean())
    np.testing.assert_allclose(rows.lengths(["text", "image"]), rows.lengths(["text"]) + rows.lengths(["image"]))
    assert not rows.lengths([]).any()


def test_rows_without_any_of_the_modalities_are_left_out(read: Read) -> None:
    present = read().present()
    assert len(read(only=["text"])) == present["text"].sum() == 21
    assert len(read(only=["image"])) == present["image"].sum() < 24
    assert len(read(only=["text", "image"])) == 24


@pytest.mark.parametrize(("rows", "kept"), [(1, 1), (5, 5), (24, 24), (1000, 24)])
def test_thinning_keeps_at_most_so_many_rows_from_all_over(rows: int, kept: int, read: Read) -> None:
    examples = read("train")
    first, last = examples.column("id")[0], examples.column("id")[-1]
    examples.thin(rows)
    assert len(set(examples.column("id"))) == len(examples) == kept
    assert examples.column("id")[0] == first
    assert kept == 1 or examples.column("id")[-1] == last


def test_what_is_missing_is_none(read: Read) -> None:
    examples, present = read(), read().present()
    for index in range(24):
        assert (examples[index]["text"] is not None) == present["text"][index]
        assert (examples[index]["image"] is not None) == present["image"][index]


def test_pictures_come_resized_as_the_graph_would(read: Read) -> None:
    shown = read()[0]["image"]
    assert shown.dtype == np.uint8
    assert shown.shape == (32, 32, 3)
    assert np.unique(shown.reshape(-1, 3), axis=0).tolist() == [[210, 30, 40]]


def test_a_picture_of_the_right_size_is_not_touched(picture: Callable[..., bytes]) -> None:
    data = picture((1, 2, 3), 32, 32)
    assert np.array_equal(to_square(data, 32), decode_image(data))


def test_the_change_is_drawn_from_seed_epoch_and_row_and_made_only_to_its_modality(read: Read) -> None:
    draws: list[int] = []
    examples = read(changes={"image": lambda picture, draw: draws.append(draw) or 255 - picture}, seed=7)
    examples.epoch = 3
    assert examples[0]["image"][0, 0].tolist() == [45, 225, 215]
    _ = examples[0], examples[4], examples[5]  # row 4 has no picture
    assert draws == [draw_of(7, 3, 0), draw_of(7, 3, 0), draw_of(7, 3, 5)]
    assert examples[5]["draw"] == draws[-1]


def test_changing_a_picture_leaves_the_data_as_it_is(read: Read) -> None:
    examples = read()
    examples[0]["image"][:] = 0
    assert examples[0]["image"].sum() > 0


def test_rows_of_several_files_come_as_those_of_one(
    read: Read, prepared: Path, tmp_path: Path, modalities: dict[str, Modality]
) -> None:
    tables = [pq.read_table(file) for file in sorted((prepared / "train").iterdir())]
    write_table(pa.concat_tables(tables), tmp_path / "train" / "all.parquet")
    one, several = Examples(tmp_path / "train", modalities), read("train")
    assert len(tables) == 2
    assert len(one) == len(several) == 24
    for index in range(24):
        first, second = one[index], several[index]
        assert (first["text"], first["label"]) == (second["text"], second["label"])
        assert (first["image"] is None) == (second["image"] is None)
        assert first["image"] is None or np.array_equal(first["image"], second["image"])
    assert one.column("id") == several.column("id")


def test_large_pictures_are_decoded_a_few_at_a_time(
    read: Read, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modalities: dict[str, Modality]
) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "BATCH_BYTES", 5 * 3 * 32 * 32)
    small = Examples(prepared / "train", modalities)
    assert [batch.num_rows for batch in small._kept["image"].batches] == [5, 5, 2, 5, 5, 2]
    assert all(
        np.array_equal(small[i]["image"], read()[i]["image"]) for i in range(24) if small[i]["image"] is not None
    )


def test_only_new_files_are_decoded(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: Encoders, modalities: dict[str, Modality]
) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    decoded = []
    plain = image.to_square
    monkeypatch.setattr(image, "to_square", lambda data, *how: decoded.append(1) or plain(data, *how))
    first, second = sorted((prepared / "train").iterdir())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / first.name).write_bytes(first.read_bytes())
    held = int(Examples(tmp_path / "train", modalities).present()["image"].sum())
    assert len(decoded) == held
    (tmp_path / "train" / second.name).write_bytes(second.read_bytes())
    both = int(Examples(tmp_path / "train", modalities).present()["image"].sum())
    assert len(decoded) == both > held
    smaller = encoders.model_copy(update={"image": encoders.image.model_copy(update={"size": 16})})
    Examples(tmp_path / "train", build_modalities(smaller, ["image"]))
    assert len(decoded) == 2 * both


def test_a_damaged_cache_gives_the_same_pictures(
    read: Read, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modalities: dict[str, Modality]
) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path))
    Examples(prepared / "train", modalities)
    for path in tmp_path.rglob("*-*"):
        path.write_bytes(path.read_bytes()[:1000])
    assert np.array_equal(Examples(prepared / "train", modalities)[0]["image"], read()[0]["image"])


def test_rows_are_told_apart_by_file_and_choice(read: Read) -> None:
    whole, thin = read("train"), read("train")
    thin.thin(12)
    parts = list(whole.by_file("text"))
    held = [name for name, text in zip(whole.column("id"), whole.column("text"), strict=True) if text is not None]
    assert [name for _, _, part in parts for name in part.column("id")] == held
    assert [whole.column("id")[number] for _, at, _ in parts for number in at] == held
    digests = {digest for one in (whole, thin, copy.copy(whole)) for digest, _, _ in one.by_file("text")}
    assert len(digests) == 4


def test_a_split_without_files_is_refused(tmp_path: Path, modalities: dict[str, Modality]) -> None:
    with pytest.raises(FuselineError, match="holds no Parquet file; the prepare stage writes them"):
        Examples(tmp_path, modalities)


def test_a_batch_has_the_arguments_of_a_member(batch: dict[str, torch.Tensor]) -> None:
    assert {name: (str(t.dtype), t.shape[0]) for name, t in batch.items()} == {
        "input_ids": ("torch.int64", 8), "attention_mask": ("torch.int64", 8), "has_text": ("torch.bool", 8),
        "pixels": ("torch.uint8", 8), "has_image": ("torch.bool", 8), "labels": ("torch.float32", 8),
    }  # fmt: skip
    assert batch["has_text"].tolist() == [True] * 6 + [False, True]
    assert batch["has_image"].tolist() == [True] * 4 + [False] + [True] * 3
    assert batch["pixels"][4].sum() == 0


def test_labels_are_one_hot(readers: dict[str, Reader]) -> None:
    row: dict[str, Any] = {"text": "sky", "image": None, "label": 2}
    assert Collator(readers, 3)([row])["labels"].tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_batch_holds_the_inputs_of_its_modalities_alone(modality: str, readers: dict[str, Reader]) -> None:
    row: dict[str, Any] = {"text": "sky", "image": None, "label": 0}
    batch = Collator({modality: readers[modality]}, 3)([row, row])
    assert sorted(batch) == sorted([*inputs_of([modality]), "labels"])
