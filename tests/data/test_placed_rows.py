"""Rows that say where words stand in the picture: what is held against the contract, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline.data import adapters, facts, intake, quarantine, shards
from fuseline.data.forgetting import forget
from fuseline.inputs.boxes import BOXES
from tests.conftest import paint
from tests.data.test_contract import rules
from tests.data.test_intake import TASK

PLACED = [[0, 1, 10, 20, 30, 40], [2, 6, 35, 20, 90, 1000]]
ROW = {"id": "a", "text": "a rose", "image": "red.png", "label": "red"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty data set."""
    (tmp_path / "data").mkdir()
    intake.begin(tmp_path / "data", "made up", TASK)
    return tmp_path / "data"


@pytest.fixture
def take(folder: Path, tmp_path: Path) -> Callable[..., intake.Taken]:
    """Give the taker-in of rows beside a picture."""

    def rows(*given: dict[str, Any]) -> intake.Taken:
        (tmp_path / "red.png").write_bytes(paint((200, 10, 10)))
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(ROW | row) for row in given))
        return from_file(tmp_path / "rows.jsonl")

    def from_file(path: Path) -> intake.Taken:
        lenient = rules().model_copy(update={"max_quarantined": 1.0})
        return intake.take_in(folder, adapters.read(path), "test", TASK, lenient)

    rows.from_file = from_file  # type: ignore[attr-defined]
    return rows


def held(folder: Path) -> dict[str, Any]:
    rows = shards.read_examples(folder, shards.WIDE.names).to_pylist()
    return {row["id"]: row[BOXES] and json.loads(row[BOXES]) for row in rows}


REFUSED = {
    "no list": ({"a": 1}, "boxes is no list; expected a list of [start, end, left, top, right, bottom]"),
    "a text": ("near the top", "boxes is no JSON"),
    "five numbers": ([[0, 1, 2, 3, 4]], "entry 1 of 1: [0, 1, 2, 3, 4] is not of the form"),
    "a fraction": ([[0, 1, 0.5, 3, 4, 5]], "six whole numbers"),
    "a truth value": ([[0, True, 1, 3, 4, 5]], "six whole numbers"),
    "a number": ([7], "entry 1 of 1: 7 is not of the form"),
    "an empty stretch": ([[2, 2, 1, 1, 2, 2]], "start 2 and end 2 are no stretch of a text of 6 characters"),
    "a stretch before the text": ([[-1, 2, 1, 1, 2, 2]], "start -1 and end 2 are no stretch"),
    "a stretch beyond the text": ([*PLACED, [2, 7, 1, 1, 2, 2]], "entry 3 of 3: start 2 and end 7 are no stretch"),
    "left of the picture": ([[0, 2, -1, 1, 2, 2]], "left -1, top 1, right 2, bottom 2 are no box"),
    "below the picture": ([[0, 2, 1, 1, 2, 1001]], "all from 0 to 1000"),
    "right before left": ([[0, 2, 5, 1, 4, 2]], "expected left <= right"),
    "bottom above top": ([[0, 2, 1, 3, 4, 2]], "top <= bottom"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_boxes_are_refused_that_are(name: str, folder: Path, take: Callable[..., intake.Taken]) -> None:
    boxes, why = REFUSED[name]
    taken = take({BOXES: boxes}, {"id": "b", BOXES: PLACED})
    assert (taken.accepted, taken.quarantined) == (1, 1)
    (refused,) = quarantine.read_refused(folder)
    assert refused.rows["rules"].to_pylist() == [["boxes"]]
    assert why in refused.rows["reasons"].to_pylist()[0][0]


def test_boxes_are_of_a_text_in_a_picture(take: Callable[..., intake.Taken]) -> None:
    taken = take({"text": None, BOXES: PLACED}, {"id": "b", "image": None, BOXES: PLACED})
    assert [example.partition(": ")[2] for example in taken.examples] == [
        "boxes is given without a text that it could be of", "boxes is given without a picture that it could be in",
    ]  # fmt: skip


def test_a_shard_has_the_column_where_some_row_needs_it(folder: Path, take: Callable[..., intake.Taken]) -> None:
    take({}, {"id": "b", BOXES: []}, {"id": "c", BOXES: None})
    take({"id": "d", BOXES: PLACED}, {"id": "e"})
    names = [pq.read_schema(path).names for path in sorted(folder.glob("shard-*.parquet"))]
    assert names == [shards.SCHEMA.names, [*shards.SCHEMA.names, BOXES]]
    assert held(folder) == {"a": None, "b": None, "c": None, "d": PLACED, "e": None}


def test_other_boxes_correct_a_row_and_the_same_change_nothing(folder: Path, take: Callable[..., intake.Taken]) -> None:
    take({BOXES: PLACED})
    assert take({BOXES: PLACED}).unchanged == 1
    assert take({BOXES: PLACED[:1]}).superseded == 1
    assert held(folder) == {"a": PLACED[:1]}


def test_rows_without_boxes_have_the_digests_that_they_always_had() -> None:
    rows = [{"id": "a", "group": "a", "text": "a rose", "image": {"bytes": b"x", "path": None}, "target": "red",
             "meta": "{}"}]  # fmt: skip
    plain, wide = (facts.digests(pa.Table.from_pylist(rows, schema)) for schema in (shards.SCHEMA, shards.WIDE))
    placed = facts.digests(pa.Table.from_pylist([rows[0] | {BOXES: "[]"}], shards.WIDE))
    assert plain == wide != placed


@pytest.mark.parametrize("kind", ["lists of numbers", "JSON", "a shard"])
def test_parquet_gives_boxes(kind: str, folder: Path, take: Callable[..., intake.Taken], tmp_path: Path) -> None:
    row = {"id": "a", "text": "a rose", "target": "red", "image": paint((200, 10, 10))}
    file = tmp_path / "rows.parquet"
    if kind == "a shard":
        take({BOXES: PLACED})
        (path,) = folder.glob("shard-*.parquet")
        file.write_bytes(path.read_bytes())
        intake.begin(folder, "made up", TASK)
    else:
        cell = PLACED if kind == "lists of numbers" else json.dumps(PLACED)
        pq.write_table(pa.Table.from_pylist([row | {BOXES: cell}]), file)
    assert take.from_file(file).accepted == 1  # type: ignore[attr-defined]
    assert held(folder) == {"a": PLACED}


def test_an_array_gives_boxes(folder: Path, take: Callable[..., intake.Taken], tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(paint((200, 10, 10)))
    (tmp_path / "rows.json").write_text(json.dumps([ROW | {BOXES: PLACED}]))
    assert take.from_file(tmp_path / "rows.json").accepted == 1  # type: ignore[attr-defined]
    assert held(folder) == {"a": PLACED}


def test_boxes_stay_when_others_are_forgotten_and_when_rows_are_released(
    folder: Path, take: Callable[..., intake.Taken]
) -> None:
    take({BOXES: PLACED}, {"id": "b"}, {"id": "c", "text": "x" * 21, BOXES: PLACED})
    forget(folder, ["b"])
    quarantine.release(folder, TASK, rules(), ids=["c"], waive=["text_length"])
    assert held(folder) == {"a": PLACED, "c": PLACED}
