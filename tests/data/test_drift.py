"""How far a data set has moved from what a champion knew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fuseline.data.drift import find_drift, total_variation
from fuseline.data.shards import SCHEMA, read_manifest, write_data_set


def shard(*rows: tuple[str, str, str | None]) -> pa.Table:
    """Give rows of id, target and text."""
    cells: list[dict[str, Any]] = [
        {"id": number, "group": number, "target": target, "text": text, "source": "here", "meta": "{}"}
        for number, target, text in rows
    ]
    return pa.Table.from_pylist(cells, SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    old = shard(("1", "a", "short"), ("2", "a", "short"), ("3", "b", "short"), ("4", "b", "short"))
    new = shard(("5", "a", "x" * 40), ("6", "c", "x" * 40), ("7", "c", None), ("8", "c", "short"))
    write_data_set(tmp_path / "data", "letters", "classification", ["a", "b", "c"], [old, new])
    return tmp_path / "data"


def test_drift_is_that_of_all_rows_from_those_that_were_known(folder: Path) -> None:
    first, second = (shard.file for shard in read_manifest(folder).shards)
    found = find_drift(folder, [first])
    assert found["labels"] == pytest.approx(3 / 8)  # 4 a, 4 b of 8 before; 3, 2 and 3 of 8 since
    assert found["modalities"] == pytest.approx(1 / 8)
    assert found["text_length"] == pytest.approx(2 / 7)
    assert find_drift(folder, [first, second]) == {"labels": 0.0, "modalities": 0.0, "text_length": 0.0}


def test_of_what_nobody_knew_there_is_no_drift(folder: Path) -> None:
    assert find_drift(folder, []) == {}


def test_the_distance_is_that_of_the_shares() -> None:
    assert total_variation({"a": 1, "b": 1}, {"a": 10, "b": 10}) == 0
    assert total_variation({"a": 5}, {"b": 1}) == 1
    assert total_variation({"a": 1, "b": 1}, {"a": 3, "b": 1}) == pytest.approx(0.25)
