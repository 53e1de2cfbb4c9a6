"""The data set on disk: immutable Parquet shards listed by a manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Audio, Features, Image, List, Value

from fuseline.errors import DataError, FuselineError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE
from fuseline.records import DataFile, DataManifest, Shard, digest_of, files_of, sha256_of

FEATURES = Features(
    {
        "id": Value("string"),
        "group": Value("string"),  # examples of one group never straddle a split
        "text": Value("string"),
        "text_pair": Value("string"),  # the second of two texts: a context, a candidate to match
        "image": Image(),  # bytes inside the shard; None where there is no picture
        "image_pair": Image(),
        "audio": Audio(),
        "audio_pair": Audio(),
        "target": Value("string"),  # in the form that the task's kind asks for; see contract.py
        "split": Value("string"),  # train, val or test where it is given; None leaves it to the group's hash
        "meta": Value("string"),  # a JSON object, for slices
        "source": Value("string"),
    }
)
SCHEMA: pa.Schema = FEATURES.arrow_schema
REQUIRED = ("id", "group", "target")
"""Columns that every shard holds; any other may be left out, which reads as null in all rows."""
FILES = ("image", "image_pair", "audio", "audio_pair")
"""Columns that hold encoded files."""
_OPTIONAL = {
    MORE: List(Image()),
    BOXES: Value("string"),  # a JSON list of inputs.boxes.KEYS; see contract.py
}
OPTIONAL = tuple(_OPTIONAL)
"""Columns that a file has only where some row needs them; others go without, as if there were no such thing."""


def schema_with(columns: Collection[str]) -> pa.Schema:
    """Return SCHEMA and some of OPTIONAL."""
    return Features({**FEATURES, **{name: _OPTIONAL[name] for name in OPTIONAL if name in columns}}).arrow_schema


WIDE = schema_with(OPTIONAL)
"""SCHEMA and all of OPTIONAL."""
BATCH_ROWS = 4096
"""Rows that are held in memory at once where a data set is gone through."""
BATCH_BYTES = 64 << 20
"""Fewer are where they are large."""


def read_manifest(folder: Path) -> DataManifest:
    """Read `manifest.json` of a data set.

    Raises:
        DataError: the folder holds no manifest, or a broken one.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(f"{path}: not found; expected a data set here: run `dvc pull data.dvc`")
    try:
        return DataManifest.read(path)
    except FuselineError as error:
        raise DataError(
            f"{error}; bring back what data.dvc names with `dvc checkout --force data.dvc`, or an older data.dvc "
            "before that: `git checkout COMMIT -- data.dvc`"
        ) from error


def read_examples(folder: Path, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Read all examples of a data set as one table, in the manifest's order: each id's newest row.

    Raises:
        DataError: a shard is missing, altered, unreadable, or has other columns or types than SCHEMA.
    """
    shards = read_manifest(folder).shards
    if not shards:
        raise DataError(f"{folder / 'manifest.json'}: lists no shard; expected at least one")
    needed = list(dict.fromkeys([*columns, "id"]))
    tables = [read_shard(folder, shard, needed) for shard in shards]
    live = live_rows([table["id"] for table in tables], [shard.supersedes for shard in shards])
    return pa.concat_tables(t if m is None else t.filter(m) for t, m in zip(tables, live, strict=True)).select(columns)


def live_rows(ids: Sequence[pa.ChunkedArray], supersedes: Sequence[int]) -> list[pa.Array | None]:
    """Tell for each shard which of its rows no later shard replaces; None where all stand.

    Args:
        ids: the id column of each shard, in the manifest's order.
        supersedes: how many older rows each shard replaces.
    """
    masks: list[pa.Array | None] = [None] * len(ids)
    newer: list[pa.ChunkedArray] = []
    for number in range(len(ids) - 1, -1, -1):
        if newer:
            replaced = pa.chunked_array([chunk for column in newer for chunk in column.chunks], pa.string())
            masks[number] = pc.invert(pc.is_in(ids[number], value_set=replaced.drop_null()))
        if supersedes[number]:
            newer.append(ids[number])
    return masks


def read_shard(folder: Path, shard: Shard, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Read columns of one shard, digest and schema checked."""
    return pa.Table.from_batches(list(_batches(open_shard(folder, shard), columns)), _schema(columns))


def iter_shard(folder: Path, shard: Shard, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
    """Yield a shard's rows in tables of at most BATCH_ROWS, so that memory stays bounded."""
    for batch in _batches(open_shard(folder, shard), columns):
        yield pa.Table.from_batches([batch])


def take_rows(folder: Path, shard: Shard, rows: Sequence[int], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Read some rows of a shard, in ascending order; of its row groups only those that hold them.

    Args:
        rows: ascending numbers within the shard.
    """
    file, wanted = open_shard(folder, shard), np.asarray(rows, np.int64)
    found, start = [], 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if ((wanted >= start) & (wanted < stop)).any():
            for batch in _batches(file, columns, [group]):
                here = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
                found.append(batch.take(pa.array(here)))
                start += len(batch)
        start = stop
    return pa.Table.from_batches(found, _schema(columns))


def open_shard(folder: Path, shard: Shard) -> pq.ParquetFile:
    """Open one shard, digest and schema checked.

    Raises:
        DataError: it is missing, altered, unreadable, or has other columns or types than SCHEMA.
    """
    path = folder / shard.file
    if not path.is_file():
        raise DataError(f"{path}: listed in manifest.json but not found; run `dvc checkout data.dvc`")
    if (found := digest_of(path)) != shard.sha256:
        raise DataError(
            f"{path}: sha256 {found[:12]}… is not the manifest's {shard.sha256[:12]}…; "
            "the shard was altered: restore it with `dvc checkout --force data.dvc`"
        )
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # else the whole file comes into memory
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    _check_schema(path, file.schema_arrow)
    if file.metadata.num_rows != shard.rows:
        raise DataError(f"{path}: {file.metadata.num_rows} rows; the manifest says {shard.rows}")
    return file


def check_file(folder: Path, entry: DataFile, columns: Sequence[str]) -> Path:
    """Return the path of a file beside a shard, its digest, rows and columns checked.

    Args:
        columns: those that it has to have.

    Raises:
        DataError: it is missing or altered, or another than the manifest takes it for.
    """
    path = folder / entry.file
    if not path.is_file() or digest_of(path) != entry.sha256:
        raise DataError(f"{path}: missing or altered; restore it with `dvc checkout --force data.dvc`")
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking or file.metadata.num_rows != entry.rows:
        what = f"has no column {lacking[0]!r}" if lacking else f"{file.metadata.num_rows} rows instead of {entry.rows}"
        raise DataError(
            f"{path}: {what}, so that manifest.json takes it for another file; bring back a sound version: "
            "`git checkout COMMIT -- data.dvc`, then `dvc checkout --force data.dvc`"
        )
    return path


def pick_rows(split: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Read the rows of a prepared split that have these ids, all columns."""
    wanted, found = pa.array(ids, pa.string()), []
    for path in files_of(split) if ids else []:
        file = pq.ParquetFile(path, pre_buffer=False)
        for group in range(file.num_row_groups):
            there = pc.is_in(file.read_row_group(group, columns=["id"])["id"], value_set=wanted)
            if pc.any(there).as_py():
                found += file.read_row_group(group).filter(there).to_pylist()
    return found


def _batches(
    file: pq.ParquetFile, columns: Sequence[str], groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    schema = _schema(columns)
    held = [name for name in columns if name in file.schema_arrow.names]
    for batch in iter_file(file, held or ["id"], groups):
        arrays = [
            batch.column(name).cast(schema.field(name).type)
            if name in held
            else pa.nulls(len(batch), schema.field(name).type)
            for name in columns
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def iter_file(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows, at most BATCH_ROWS and about BATCH_BYTES at once, never of two row groups.

    A row group that was written here holds no more than that, whatever the size of single rows.
    """
    for number in range(file.num_row_groups) if groups is None else groups:
        group = file.metadata.row_group(number)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)))
        yield from file.iter_batches(batch_size=rows, row_groups=[number], columns=columns and list(columns))


def _schema(columns: Sequence[str]) -> pa.Schema:
    return SCHEMA if list(columns) == SCHEMA.names else pa.schema([WIDE.field(name) for name in columns])


def schema_of(folder: Path, shard: Shard) -> pa.Schema:
    """Return the schema of a shard's rows, with what of OPTIONAL some of them need."""
    return schema_with(open_shard(folder, shard).schema_arrow.names)


def _check_schema(path: Path, found: pa.Schema) -> None:
    problems = [f"column {name!r} is missing" for name in REQUIRED if name not in found.names]
    problems += [f"column {name!r} is not known" for name in found.names if name not in WIDE.names]
    problems += [
        f"column {name!r} has type {found.field(name).type}; expected {WIDE.field(name).type}"
        for name in WIDE.names
        if name in found.names and not found.field(name).type.equals(WIDE.field(name).type)
    ]
    if problems:
        raise DataError(f"{path}: broken schema: {'; '.join(problems)}")


def write_shard(folder: Path, table: pa.Table, number: int) -> Shard:
    """Write `table` as shard `number`, named by number and digest, and return its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"shard-{number:05d}.part"
    write_table(table, part)
    return name_shard(part, number, table.num_rows)


def name_shard(part: Path, number: int, rows: int) -> Shard:
    """Give a written file its name as shard `number`, and return its entry."""
    digest = sha256_of(part)
    path = part.with_name(f"shard-{number:05d}-{digest[:12]}.parquet")
    part.replace(path)
    return Shard(file=path.name, sha256=digest, rows=rows)


def write_data_set(folder: Path, name: str, task: str, labels: Sequence[str], tables: Sequence[pa.Table]) -> None:
    """Write a data set of one shard per table, the manifest last."""
    shards = [write_shard(folder, table, number) for number, table in enumerate(tables)]
    rows = sum(shard.rows for shard in shards)
    DataManifest(name=name, task=task, labels=list(labels), rows=rows, shards=shards).write(folder / "manifest.json")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of SCHEMA or of a superset of it, the same bytes for the same rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(path, table.schema) as writer:
        writer.write_table(table)


def open_writer(path: Path, schema: pa.Schema, compression: str = "zstd") -> pq.ParquetWriter:
    """Open a file to write tables to, one after the other."""
    return pq.ParquetWriter(path, schema, compression=compression, write_page_index=False)
