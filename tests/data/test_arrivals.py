"""What the split goes by: names as numbers, in order of arrival."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from fuseline.config import Prepare
from fuseline.data.arrivals import number_rows, read_rows
from fuseline.data.shards import SCHEMA, read_manifest, write_data_set

SETTINGS = Prepare.model_validate(yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["prepare"])
UNPINNED = np.full(4, -1, np.int8)


def names(**columns: list[str | None]) -> pa.Table:
    size = len(next(iter(columns.values())))
    given = {name: columns.get(name, [None] * size) for name in ("id", "group", "split")}
    return pa.table({name: pa.chunked_array([pa.array(cells, pa.string())]) for name, cells in given.items()})


def test_names_are_numbered_as_they_first_appear() -> None:
    arrivals = number_rows(names(id=["b", "a", "b"], group=["y", "x", "x"]), [2, 1], UNPINNED[:3])
    assert arrivals.ids_N.tolist() == [0, 1, 0]
    assert arrivals.groups_N.tolist() == [0, 1, 1]
    assert arrivals.names_G == ["y", "x"]
    assert arrivals.sizes == [2, 1]


def test_a_blank_group_is_none_and_so_is_an_unknown_split() -> None:
    arrivals = number_rows(names(group=["x", None, " ", ""], split=["test", None, "dev", "train"]), [4], UNPINNED[:4])
    assert arrivals.groups_N.tolist() == [0, -1, -1, -1]
    assert arrivals.declared_N.tolist() == [2, -1, -1, 0]
    assert arrivals.ids_N.tolist() == [-1] * 4


def test_no_rows_are_no_trouble() -> None:
    assert number_rows(names(id=[]), [], UNPINNED[:0]).names_G == []


def test_superseded_rows_are_among_all_but_do_not_stand(tmp_path: Path) -> None:
    rows = [{"id": name, "group": "g", "text": f"text {n}", "target": "t"} for n, name in enumerate("abca")]
    tables = [pa.Table.from_pylist(rows[:3], schema=SCHEMA), pa.Table.from_pylist(rows[3:], schema=SCHEMA)]
    write_data_set(tmp_path, "made up", "classification", ["t", "u"], tables)
    manifest = read_manifest(tmp_path)
    manifest = manifest.model_copy(
        update={"shards": [manifest.shards[0], manifest.shards[1].model_copy(update={"supersedes": 1})]}
    )
    found = read_rows(tmp_path, manifest, SETTINGS, targets=False, pool=None)
    assert found.names["id"].to_pylist() == ["a", "b", "c", "a"]
    assert found.live_N.tolist() == [False, True, True, True]
    assert found.facts.num_rows == 4
    assert "target" not in found.names.column_names
