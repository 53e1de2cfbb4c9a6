"""Rows are cut into slices by what they are, hold and bring along."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fuseline.evaluation import slices
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner

PLAIN = Classification(["a", "b"])
ROWS: dict[str, Any] = {
    "targets": ["a", "b", "a"],
    "present": {"text": np.array([True, True, False]), "image": np.array([True, False, False])},
    "texts": ["x" * 15, "x" * 16, None],
    "sources": ["web", None, "web"],
    "metas": [json.dumps({"age": 7, "who": "Ada"}), json.dumps({"age": "seven", "who": ""}), None],
}


def cut(by: str, task: Task = PLAIN, **changes: Any) -> list[list[str]]:
    return [list(row) for row in slices.cut(by, task, **ROWS | changes)]


def test_rows_are_cut_by_what_is_true_of_them() -> None:
    assert cut("label") == [["a"], ["b"], ["a"]]
    assert cut("label", MultiLabel(["a", "b"]), targets=['["a", "b"]', '["b"]', "[]"]) == [
        ["a", "b"], ["b"], ["no label"],
    ]  # fmt: skip
    spans = ['[[0, 1, "b"], [2, 3, "a"], [4, 5, "a"]]', '[[0, 1, "b"]]', "[]"]
    assert cut("label", Ner(["a", "b"], "bio"), targets=spans) == [["a", "b"], ["b"], ["no entity"]]


def test_rows_are_cut_by_what_they_hold_and_where_they_came_from() -> None:
    assert cut("modalities") == [["text + image"], ["text"], ["none"]]
    assert cut("length") == [["under 16 characters"], ["16 to 63 characters"], ["no text"]]
    assert cut("source") == [["web"], ["none"], ["web"]]
    assert cut("meta.age") == [["7"], ["seven"], ["none"]]
    assert cut("meta.who") == [["Ada"], ["none"], ["none"]]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "under 16 characters"), (" " * 20, "under 16 characters"), ("x" * 63, "16 to 63 characters"),
        ("x" * 1023, "256 to 1,023 characters"), ("x" * 1024, "1,024 characters or more"),
    ],
    ids=["empty", "white space", "the last of a stretch", "long", "very long"],
)  # fmt: skip
def test_a_length_has_a_name(text: str, name: str) -> None:
    assert slices.name_length(text) == name


def test_the_largest_slices_keep_their_names() -> None:
    names = [["a"], ["a"], ["b"], ["c"], ["c", "d"], ["e"]]
    assert slices.limit(names, 5) == names
    assert slices.limit(names, 3) == [["a"], ["a"], ["other"], ["c"], ["c", "other"], ["other"]]
    assert slices.limit(names, 1) == [["other"]] * 6


def test_slices_are_read_back_from_the_predictions() -> None:
    table = pa.table({"id": ["1", "2"], "slice.label": [["a"], ["a", "b"]], "slice.meta.age": [["7"], ["8"]]})
    found = slices.read(table)
    assert {by: {name: mask.tolist() for name, mask in parts.items()} for by, parts in found.items()} == {
        "label": {"a": [True, True], "b": [False, True]}, "meta.age": {"7": [True, False], "8": [False, True]},
    }  # fmt: skip
