"""A batch's format is seen from its names and beginnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.adapters import FORMATS, detect
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]

CONTENTS = {
    "rows.jsonl": ("lines", '{"text": "a", "label": "x"}\n'),
    "rows.json": ("lines", '{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}\n'),
    "rows.csv": ("delimited", "text,label\na,x\n"),
    "rows.tsv": ("delimited", "text\tlabel\na\tx\n"),
    "tokens.tsv": ("conll", "Ann\tB-PER\n"),
    "tokens.conll": ("conll", ""),
    "tokens.txt": ("conll", "# a comment\n\nAnn NNP B-PER\nmet VBD O\n\n"),
    "export.json": ("label_studio", '[{"id": 1, "data": {}, "annotations": []}]'),
    "array.json": ("array", '[{"text": "a", "label": "x"}]'),
    "squad.json": ("squad", '{"version": "1.1", "data": [{"title": "a", "paragraphs": []}]}'),
    "rows.parquet": ("parquet", "PAR1"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_is_known(write: Write, batch: Path, name: str) -> None:
    expected, content = CONTENTS[name]
    path = write(name, content)
    write("../batch/README.md", "about")
    assert detect(path) == detect(batch) == expected


def test_each_format_is_detected_somewhere() -> None:
    assert {expected for expected, _ in CONTENTS.values()} | {"image_folder"} == set(FORMATS)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["metadata.jsonl", "a.png"], "image_folder"),
        (["cat/a.png", "dog/b.png"], "image_folder"),
        (["images/a.png", "rows.csv"], "delimited"),
        (["train.jsonl", "test.jsonl", "LICENSE.txt", "_SUCCESS", ".DS_Store"], "lines"),
    ],
)
def test_a_folder_is_known(write: Write, batch: Path, names: list[str], expected: str) -> None:
    for name in names:
        write(name, "x\n")
    assert detect(batch) == expected


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.csv", "b.jsonl"], "several formats.*a.csv: delimited; b.jsonl: lines"),
        (["notes.txt"], "no batch of a known format; found notes.txt"),
        ([".hidden"], "found nothing"),
    ],
)
def test_what_is_unclear_is_said(write: Write, batch: Path, names: list[str], why: str) -> None:
    for name in names:
        write(name, "x\n")
    with pytest.raises(DataError, match=why):
        detect(batch)


def test_an_unknown_file_a_missing_one_and_an_unknown_format_are_errors(write: Write, rows_of: Rows) -> None:
    path = write("rows.json", '["a", "b"]')
    with pytest.raises(DataError, match="of no known format"):
        detect(path)
    with pytest.raises(DataError, match="not found"):
        detect(path.with_name("none"))
    with pytest.raises(DataError, match="format 'xml' is not known; expected of image_folder"):
        rows_of(path, "xml")
    with pytest.raises(DataError, match="no file of the format squad"):
        rows_of(write("cat/a.png", "x").parent.parent, "squad")


@pytest.mark.parametrize("content", ["[]", "[{}]", "[{", '[{"text": "a"'])
def test_an_array_without_rows_is_of_no_known_format(write: Write, content: str) -> None:
    with pytest.raises(DataError, match=r"of no known format; expected JSON Lines, .*\(--format\)"):
        detect(write("rows.json", content))


def test_an_array_s_elements_are_rows_and_what_is_no_object_a_problem(write: Write, rows_of: Rows, batch: Path) -> None:
    write("a.png", b"picture")
    rows = [{"text": "a", "label": "x", "image": "a.png", "more": 1}, 7, {"text": "b"}]
    first, second, third = rows_of(write("rows.json", json.dumps(rows, indent=1)))
    assert first == {"text": "a", "target": "x", "image": b"picture", "meta": '{"more": 1}',
                     "where": "rows.json, element 1"}  # fmt: skip
    assert second["problem"] == "element is a number; expected an object"
    assert third["problem"] == "target is missing"


@pytest.mark.parametrize("name", ["rows.parquet.gz", "rows.jsonl.zst", "rows.7z"])
def test_a_compressed_file_of_unknown_content_is_refused_with_advice(write: Write, name: str) -> None:
    with pytest.raises(DataError, match=r"is compressed, and what is in it is not known; .* are unpacked"):
        detect(write(name, "x"))


def test_a_format_can_be_named_for_any_suffix(write: Write, rows_of: Rows) -> None:
    assert rows_of(write("rows.log", '{"text": "a", "label": "x"}\n'), "lines")[0]["text"] == "a"


def test_files_named_for_different_splits_give_them(write: Write, rows_of: Rows, batch: Path) -> None:
    for name in ("wnut17train.jsonl", "emerging.dev.jsonl", "emerging.test.jsonl", "latest.jsonl"):
        write(name, f'{{"text": "{name}", "label": "x"}}\n')
    found = {row["text"]: row.get("split") for row in rows_of(batch)}
    assert found == {
        "wnut17train.jsonl": "train", "emerging.dev.jsonl": "val", "emerging.test.jsonl": "test", "latest.jsonl": None,
    }  # fmt: skip


def test_a_single_file_named_train_is_a_batch_like_any_other(write: Write, rows_of: Rows, batch: Path) -> None:
    write("train.jsonl", '{"text": "a", "label": "x"}\n{"text": "a", "label": "x", "split": "test"}\n')
    assert [row.get("split") for row in rows_of(batch)] == [None, "test"]
