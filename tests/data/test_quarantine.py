"""Releasing quarantined rows: whatever else is there under their ids, none is lost, none takes a newer one's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fuseline.data import quarantine, shards
from fuseline.data.intake import begin, take_in
from fuseline.errors import DataError
from tests.data.test_contract import rules
from tests.data.test_intake import TASK, draft, row

LONG, OTHER, SHORT = (row(text, id="1") for text in ("x" * 60, "y" * 60, "short"))
CONTRACT = rules(max_text_chars=50, max_quarantined=0.9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a data set of one example."""
    begin(tmp_path, "made up", TASK)
    take(tmp_path, row("a", id="0"))
    return tmp_path


def take(folder: Path, *rows: dict[str, Any]) -> None:
    take_in(folder, [draft(*rows)], "test", TASK, CONTRACT)


def release(folder: Path, ids: Sequence[str] = (), batch: int | None = None) -> None:
    quarantine.release(folder, TASK, CONTRACT, ids, batch, ["text_length"])


def held(folder: Path) -> dict[str, str]:
    return {one["id"]: one["text"] for one in shards.read_examples(folder).to_pylist()}


def refused(folder: Path) -> int:
    return sum(found.rows.num_rows for found in quarantine.read_refused(folder))


RELEASES: dict[str, tuple[list[Any], int | None, dict[str, Any] | str]] = {
    "one content": ([[LONG]], None, LONG),
    "one content twice": ([[LONG], [LONG, row("b", id="2")]], None, LONG),
    "two contents": ([[LONG], [OTHER]], None, "still break the contract"),
    "two contents, one named": ([[LONG], [OTHER]], 2, OTHER),
    "two contents in one batch": ([[LONG, OTHER]], None, "stands in this batch again, with other content"),
    "accepted before": ([[SHORT], [LONG]], None, LONG),
    "accepted since": ([[LONG], [SHORT]], None, "took in another row of that id after this one"),
    "accepted beside it": ([[LONG, SHORT]], None, "took in another row of that id after this one"),
    "released, accepted and refused again": ([[LONG], "release", [SHORT], [LONG, row("b")]], None, LONG),
    "released, and there again": ([[LONG], "release", [LONG, row("b")]], None, "no quarantined row has the id 1"),
}


@pytest.mark.parametrize("case", RELEASES)
def test_a_release_loses_no_row(folder: Path, case: str) -> None:
    batches, batch, expected = RELEASES[case]
    for number, rows in enumerate(batches):
        if rows == "release":
            release(folder, ["1"])
        else:
            take(folder, *rows, row(f"more {number}"))
    before = held(folder)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            release(folder, ["1"], batch)
        return
    release(folder, ["1"], batch)
    assert held(folder) == before | {"1": expected["text"]}
    assert refused(folder) == (1 if batch else 0)


def test_a_whole_batch_is_released_and_what_was_not_named_stays(folder: Path) -> None:
    take(folder, LONG, row("z" * 60, id="2"), row("b", id="3"))
    take(folder, row("w" * 60, id="4"), row("c", id="5"))
    release(folder, batch=1)
    assert held(folder).keys() == {"0", "1", "2", "3", "5"}
    assert refused(folder) == 1


@pytest.mark.parametrize(("ids", "why"), [(["1", "nobody"], "no quarantined row has the id nobody"), ([], "was named")])
def test_what_is_not_there_cannot_be_released(folder: Path, ids: list[str], why: str) -> None:
    take(folder, LONG, row("b", id="2"))
    with pytest.raises(DataError, match=why):
        release(folder, ids, None if ids else 0)


def test_a_released_row_still_says_where_it_came_from_first(folder: Path) -> None:
    take(folder, LONG, row("b", id="2"))
    release(folder, ["1"])
    assert {one["source"] for one in shards.read_examples(folder).to_pylist()} == {"test"}
    assert shards.read_manifest(folder).shards[-1].source == "released from quarantine"
