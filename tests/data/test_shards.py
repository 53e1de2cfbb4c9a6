"""The data set on disk: the same rows come back, and nothing that was altered does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline.data import shards
from fuseline.data.shards import (
    SCHEMA,
    iter_shard,
    read_examples,
    read_manifest,
    read_shard,
    write_data_set,
    write_shard,
    write_table,
)
from fuseline.errors import DataError
from fuseline.records import Shard, sha256_of


@pytest.fixture
def folder(examples: pa.Table, labels: list[str], tmp_path: Path) -> Path:
    write_data_set(tmp_path, "made up", "classification", labels, [examples.slice(0, 30), examples.slice(30)])
    return tmp_path


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[[pa.Table], str]:
    """Write a table as a shard, expect it to be refused, and return why."""

    def attempt(table: pa.Table) -> str:
        path = tmp_path / "shard.parquet"
        pq.write_table(table, path)
        with pytest.raises(DataError) as caught:
            read_shard(tmp_path, Shard(file=path.name, sha256=sha256_of(path), rows=table.num_rows))
        return str(caught.value)

    return attempt


def test_examples_come_back_as_they_were_written(folder: Path, examples: pa.Table) -> None:
    found = read_examples(folder)
    assert found.equals(examples)
    assert found.schema.equals(SCHEMA)


def test_the_manifest_counts_rows_and_lists_shards_in_order(folder: Path, labels: list[str]) -> None:
    manifest = read_manifest(folder)
    assert (manifest.rows, manifest.labels) == (42, labels)
    assert [shard.rows for shard in manifest.shards] == [30, 12]
    assert [shard.file[:12] for shard in manifest.shards] == ["shard-00000-", "shard-00001-"]


def test_the_same_rows_give_the_same_bytes(examples: pa.Table, tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a", examples, 0)
    again = write_shard(tmp_path / "b", pa.concat_tables([examples.slice(0, 5), examples.slice(5)]).combine_chunks(), 0)
    assert first == again


def test_a_shard_is_named_by_its_digest_and_nothing_else_is_left(examples: pa.Table, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, examples, 7)
    assert [file.name for file in tmp_path.iterdir()] == [shard.file] == [f"shard-00007-{shard.sha256[:12]}.parquet"]


def test_a_superset_of_the_columns_can_be_written(examples: pa.Table, tmp_path: Path) -> None:
    table = examples.append_column("label", pa.array(range(42), pa.int64()))
    write_table(table, tmp_path / "new" / "train.parquet")
    assert pq.read_table(tmp_path / "new" / "train.parquet").equals(table)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: not found; expected a data set here"):
        read_examples(tmp_path)


def test_an_altered_shard_is_refused(folder: Path) -> None:
    path = folder / read_manifest(folder).shards[1].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path.name}: sha256 .* the shard was altered"):
        read_examples(folder)


def test_a_missing_shard_is_refused(folder: Path) -> None:
    path = folder / read_manifest(folder).shards[0].file
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name}: listed in manifest.json but not found"):
        read_examples(folder)


def test_a_truncated_shard_is_refused_even_if_its_digest_was_mended(folder: Path) -> None:
    path = folder / read_manifest(folder).shards[0].file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_shard(folder, Shard(file=path.name, sha256=sha256_of(path), rows=30))


def test_a_wrong_number_of_rows_is_refused(folder: Path) -> None:
    shard = read_manifest(folder).shards[0]
    with pytest.raises(DataError, match="30 rows; the manifest says 31"):
        read_shard(folder, shard.model_copy(update={"rows": 31}))


def test_a_missing_column_is_refused(examples: pa.Table, refuse: Callable[[pa.Table], str]) -> None:
    assert "column 'target' is missing" in refuse(examples.drop_columns(["target"]))


def test_an_unknown_column_is_refused(examples: pa.Table, refuse: Callable[[pa.Table], str]) -> None:
    assert "column 'notes' is not known" in refuse(examples.append_column("notes", examples["id"]))


def test_a_column_of_another_type_is_refused(examples: pa.Table, refuse: Callable[[pa.Table], str]) -> None:
    numbers = examples.set_column(0, "id", pa.array(range(42), pa.int64()))
    assert "column 'id' has type int64; expected string" in refuse(numbers)


def test_all_problems_of_a_schema_are_told_at_once(examples: pa.Table, refuse: Callable[[pa.Table], str]) -> None:
    words = refuse(examples.drop_columns(["target", "group"]).append_column("notes", examples["id"]))
    assert words.endswith("column 'group' is missing; column 'target' is missing; column 'notes' is not known")


def test_columns_in_another_order_are_put_right(examples: pa.Table, tmp_path: Path) -> None:
    shard = write_shard(tmp_path, examples.select(list(reversed(SCHEMA.names))), 0)
    assert read_shard(tmp_path, shard).equals(examples)


def test_large_rows_are_held_in_memory_a_few_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = read_manifest(folder).shards[0]
    assert [rows.num_rows for rows in iter_shard(folder, shard)] == [30]
    size = pq.ParquetFile(folder / shard.file).metadata.row_group(0).total_byte_size
    monkeypatch.setattr(shards, "BATCH_BYTES", size // 5)
    parts = list(iter_shard(folder, shard))
    assert max(rows.num_rows for rows in parts) <= 6
    assert pa.concat_tables(parts).equals(read_shard(folder, shard))
