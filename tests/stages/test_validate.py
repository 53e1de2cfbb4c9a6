"""The validate stage: shards of any size, rows that stand, and rows that were released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from fuseline.config import Params
from fuseline.data import forgetting, intake
from fuseline.records import Validation
from fuseline.stages import validate
from tests.data.test_contract import rules
from tests.data.test_intake import TASK, draft, row

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    intake.begin(tmp_path / "data", "made up", TASK)
    return tmp_path / "data"


def take(folder: Path, *rows: dict[str, Any], waives: tuple[str, ...] = ()) -> None:
    intake.take_in(folder, [draft(*rows)], "test", TASK, rules(max_text_chars=50, max_quarantined=0.5), waives)


def run(**changes: Any) -> Validation:
    document = yaml.safe_load(PARAMS.read_text())
    document["task"]["labels"] = TASK.labels
    document["validate"] |= {"min_class_share": 0.0} | changes
    validate.main(Params.model_validate(document))
    return Validation.read(Path("build/validate/validation.json"))


def test_a_shard_may_be_empty(data: Path) -> None:
    take(data, row("a", id="1"))
    take(data, row("b", id="2"))
    forgetting.forget(data, ["1"])
    assert (run().rows, run().passed) == (1, True)


def test_only_rows_that_stand_are_looked_at(data: Path) -> None:
    take(data, row("a" * 9, id="1"), row("b", id="2"))
    take(data, row("a", id="1"))
    assert (run(max_text_chars=5).rows, run(max_text_chars=5).quarantined) == (2, 0)


def test_bad_rows_are_numbered_among_those_that_stand(data: Path) -> None:
    take(data, row("a", id="1"), row("b", id="2"))
    take(data, row("c", id="1"), row("d" * 9, id="3"))
    assert run(max_text_chars=5, max_quarantined=0.5).quarantined == 1
    found = pq.read_table("build/validate/quarantine.parquet").to_pylist()
    assert [(one["id"], one["row"]) for one in found] == [("3", 2)]
    assert "text has 9 characters" in found[0]["reasons"]


def test_released_rows_stay_released(data: Path) -> None:
    take(data, row("a", id="1"))
    take(data, row("b" * 60, id="2"), waives=("text_length",))
    assert run(max_text_chars=5).quarantined == 0


def test_rows_refused_when_they_came_in_are_counted(data: Path) -> None:
    take(data, row("a", id="1"), row("b", "pink", id="2"))
    assert (run().rows, run().refused) == (1, 1)


def test_the_same_data_gives_the_same_bytes(data: Path) -> None:
    take(data, row("a", id="1"), row("b" * 9, id="2"))
    run(max_text_chars=5, max_quarantined=0.5)
    first = {path: path.read_bytes() for path in Path("build").rglob("*") if path.is_file()}
    run(max_text_chars=5, max_quarantined=0.5)
    assert len(first) == 4
    assert {path: path.read_bytes() for path in first} == first
