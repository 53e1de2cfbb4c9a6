"""ImageFolder and AudioFolder: with metadata, or with a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


def test_metadata_beside_the_files_gives_the_rows(write: Write, rows_of: Rows, batch: Path) -> None:
    write("rose.png", b"rose")
    write("sub/sea.wav", b"sea")
    write("metadata.csv", "file_name,text,label\nrose.png,a rose,red\nsub/sea.wav,,blue\n")
    picture, sound = rows_of(batch)
    assert picture == {"image": b"rose", "text": "a rose", "target": "red", "where": "metadata.csv, line 2"}
    assert sound == {"audio": b"sea", "target": "blue", "where": "metadata.csv, line 3"}


def test_metadata_in_split_folders_gives_the_split(write: Write, rows_of: Rows, batch: Path) -> None:
    for folder, split in (("train", "train"), ("validation", "val"), ("Test", "test")):
        write(f"{folder}/a.png", folder.encode())
        write(f"{folder}/metadata.jsonl", '{"file_name": "a.png", "label": "x"}\n')
        assert (folder.encode(), split) in [(row["image"], row["split"]) for row in rows_of(batch)]


def test_a_file_that_no_metadata_names_is_not_lost(write: Write, rows_of: Rows, batch: Path) -> None:
    write("a.png", b"a")
    write("b.png", b"b")
    write("notes.txt", b"notes")
    write("metadata.jsonl", '{"file_name": "./a.png", "label": "x"}\n{"file_name": "c.png", "label": "x"}\n')
    rows = rows_of(batch)
    assert [row.get("problem") for row in rows] == [
        None, "image 'c.png' is not found in the batch", "no metadata names it",
    ]  # fmt: skip
    assert rows[2]["where"] == "b.png"


def test_two_kinds_of_metadata_in_a_folder_are_refused(write: Write, rows_of: Rows, batch: Path) -> None:
    write("metadata.csv", "file_name,label\n")
    write("metadata.jsonl", "")
    with pytest.raises(DataError, match=r"metadata\.jsonl and metadata\.csv; expected one"):
        rows_of(batch)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cat/1.png", "dog/2.wav"], [("cat", None), ("dog", None)]),
        (["train/cat/1.png", "val/cat/2.png", "test/dog/3.png"], [("dog", "test"), ("cat", "train"), ("cat", "val")]),
        (["train/cat/1.png"], [("cat", "train")]),
        (["animals/cat/1.png", "animals/dog/2.png"], [("cat", None), ("dog", None)]),
        (["zip/train/cat/1.png", "zip/train/dog/2.png"], [("cat", "train"), ("dog", "train")]),
        (["Fruit/Apple/Gala/1.png", "Fruit/Pear/2.png"], [("Gala", None), ("Pear", None)]),
        (["train/1.png", "car/2.png"], [("car", None), ("train", None)]),
        (["cat/1.png"], [("cat", None)]),
    ],
)
def test_folders_name_label_and_split(
    write: Write, rows_of: Rows, batch: Path, names: list[str], found: list[Any]
) -> None:
    for name in names:
        write(name, b"x")
    assert [(row.get("target"), row.get("split")) for row in rows_of(batch)] == found


def test_a_file_without_a_class_or_of_another_kind_is_not_lost(write: Write, rows_of: Rows, batch: Path) -> None:
    write("cat/1.png", b"1")
    write("cat/notes.txt", b"2")
    write("2.png", b"3")
    write("README.md", b"4")
    write("cat/.hidden.png", b"5")
    rows = {row["where"]: row.get("problem", "") for row in rows_of(batch)}
    assert rows.keys() == {"cat/1.png", "cat/notes.txt", "2.png"}
    assert rows["2.png"].startswith("target is missing")
    assert "neither a picture nor sound" in rows["cat/notes.txt"]


def test_links_pipes_and_folders_in_a_class_are_problems(write: Write, rows_of: Rows, batch: Path) -> None:
    secret = write("../secret.png", b"secret")
    write("cat/0.png", b"0")
    (batch / "cat/1.png").symlink_to(secret)
    (batch / "cat/2.png").symlink_to("0.png")
    (batch / "cat/3.png").symlink_to(batch)
    (batch / "cat/4.png").symlink_to("none.png")
    os.mkfifo(batch / "cat/5.png")
    rows = {row["where"]: row.get("problem", row.get("image")) for row in rows_of(batch)}
    assert rows["cat/0.png"] == rows["cat/2.png"] == b"0"
    assert "link out of the batch" in rows["cat/1.png"]
    assert "is a folder" in rows["cat/3.png"]
    assert "not found" in rows["cat/4.png"]
    assert "a device, a pipe, a socket" in rows["cat/5.png"]


def test_metadata_that_is_a_link_out_of_the_batch_is_refused(write: Write, rows_of: Rows, batch: Path) -> None:
    write("a.png", b"a")
    (batch / "metadata.csv").symlink_to(write("../rows.csv", "file_name,label\na.png,x\n"))
    with pytest.raises(DataError, match="link out of the batch"):
        rows_of(batch)


def test_columns_cannot_be_named_without_metadata(write: Write, rows_of: Rows, batch: Path) -> None:
    write("cat/1.png", b"1")
    with pytest.raises(DataError, match="no named columns"):
        rows_of(batch, columns={"text": "caption"})


def test_metadata_may_name_several_pictures_of_a_row(write: Write, rows_of: Rows, batch: Path) -> None:
    for name in ("a.png", "sub/b.png", "c.png"):
        write(name, name.encode())
    write("metadata.jsonl", '{"image": ["a.png", "sub/b.png"], "label": "x"}\n{"image": "c.png", "label": "y"}\n')
    several, one = rows_of(batch)
    assert (several["image"], several["more_images"]) == (b"a.png", [b"sub/b.png"])
    assert one["image"] == b"c.png"
    assert "more_images" not in one
    assert not {"problem"} & (several.keys() | one.keys())
