"""Rows of a data set on disk stay in their splits when others are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fuseline.config import Prepare
from fuseline.data.arrivals import read_rows
from fuseline.data.dealing import deal_rows, keeping_splits
from fuseline.data.forgetting import forget
from fuseline.data.intake import begin
from fuseline.data.rewrite import listed_files
from fuseline.data.shards import read_manifest
from fuseline.data.split import SPLITS, split_of
from fuseline.errors import DataError
from tests.data.test_intake import TASK, row, take

SETTINGS = Prepare.model_validate(yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["prepare"])
SIZE = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a data set in which every text stands twice, the second time in a batch of its own."""
    begin(tmp_path, "made up", TASK)
    for kind in ("first", "copy"):
        take(tmp_path, *(row(f"text {n}", id=f"{kind} {n}") for n in range(SIZE)), max_quarantined=0.99,
             max_duplicates=1.0)  # fmt: skip
    return tmp_path


def splits(folder: Path, settings: Prepare = SETTINGS) -> dict[str, str]:
    rows = read_rows(folder, read_manifest(folder), settings, False, None)
    dealt = deal_rows(rows, settings, np.zeros(0, np.int64)).splits_N
    return {name: SPLITS[code] for name, code in zip(rows.names["id"].to_pylist(), dealt, strict=True) if code >= 0}


def erase(folder: Path, *ids: str, settings: Prepare = SETTINGS) -> None:
    with keeping_splits(folder, settings):
        forget(folder, ids)


def pins(folder: Path) -> list[Any]:
    entry = read_manifest(folder).pinned_splits
    return [] if entry is None else pq.read_table(folder / entry.file)["id"].to_pylist()


def test_copies_stay_where_they_were_because_of_a_deleted_example(folder: Path) -> None:
    before = splits(folder)
    erase(folder, *(f"first {n}" for n in range(SIZE // 2)))
    assert splits(folder) == {name: split for name, split in before.items() if name not in
                              {f"first {n}" for n in range(SIZE // 2)}}  # fmt: skip
    assert 0 < len(pins(folder)) < SIZE // 2  # the hash alone sends the others where they are
    assert {path.name for path in folder.iterdir()} == set(listed_files(read_manifest(folder)))
    take(folder, *(row(f"late {n}") for n in range(9)))
    assert {name: split for name, split in splits(folder).items() if name in before}.items() <= before.items()


def test_pins_of_deleted_examples_go_with_them(folder: Path) -> None:
    erase(folder, *(f"first {n}" for n in range(SIZE)))
    pinned = pins(folder)
    erase(folder, *pinned)
    assert pinned
    assert not pins(folder)
    assert read_manifest(folder).pinned_splits is None


def test_pins_count_as_long_as_the_settings_do(folder: Path) -> None:
    erase(folder, *(f"first {n}" for n in range(SIZE)))
    kept = splits(folder)
    assert splits(folder, SETTINGS.model_copy(update={"freeze_test": 2})) == kept
    other = SETTINGS.model_copy(update={"salt": "another"})
    anew = splits(folder, other)
    assert anew != kept
    erase(folder, "copy 0", settings=other)
    assert splits(folder, other).items() <= anew.items()
    assert splits(folder).items() <= kept.items()


def test_an_example_pinned_to_test_is_no_late_one_in_a_test_split_that_is_frozen(folder: Path) -> None:
    erase(folder, *(f"first {n}" for n in range(SIZE)))
    frozen = splits(folder, SETTINGS.model_copy(update={"freeze_test": 1}))
    assert "test" not in frozen.values()


def test_all_can_be_forgotten(folder: Path) -> None:
    erase(folder, *splits(folder))
    assert splits(folder) == {}


def test_a_refused_deletion_changes_nothing(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="no example has the id nobody"):
        erase(folder, "nobody")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_altered_file_of_pins_is_told(folder: Path) -> None:
    erase(folder, *(f"first {n}" for n in range(SIZE)))
    entry = read_manifest(folder).pinned_splits
    assert entry is not None
    pq.write_table(pa.table({"id": ["x"]}), folder / entry.file)
    with pytest.raises(DataError, match="pins-"):
        splits(folder)


def test_a_version_that_was_held_out_stays_so_though_the_next_one_was_not(tmp_path: Path) -> None:
    names = [str(n) for n in range(50)]
    groups = {split_of(name, SETTINGS.salt, SETTINGS.val, SETTINGS.test): name for name in names}
    begin(tmp_path, "made up", TASK)
    take(tmp_path, row("one", id="x", group=groups["test"]), row("two", id="y", group=groups["train"]))
    take(tmp_path, row("one", id="y"), max_duplicates=1.0)
    take(tmp_path, row("one", id="u"), max_duplicates=1.0)
    take(tmp_path, row("three", id="y", group=groups["train"]))
    assert splits(tmp_path) == {"x": "test", "y": "train", "u": "test"}
    erase(tmp_path, "x")
    entry = read_manifest(tmp_path).pinned_splits
    assert entry is not None
    found = pq.read_table(tmp_path / entry.file).drop_columns("settings").to_pylist()
    assert found == [{"id": "y", "version": 1, "split": "none"}, {"id": "u", "version": 0, "split": "test"}]
    assert splits(tmp_path) == {"y": "train", "u": "test"}
