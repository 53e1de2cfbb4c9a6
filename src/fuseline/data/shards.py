"""The data set on disk: immutable Parquet shards listed by a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, Value

from fuseline.errors import DataError
from fuseline.records import DataManifest, Shard, sha256_of

FEATURES = Features(
    {
        "id": Value("string"),
        "group": Value("string"),  # examples of one group never straddle a split
        "text": Value("string"),
        "image": Image(),  # bytes inside the shard; None where there is no picture
        "target": Value("string"),
        "meta": Value("string"),  # a JSON object, for slices
        "source": Value("string"),
    }
)
SCHEMA: pa.Schema = FEATURES.arrow_schema


def read_manifest(folder: Path) -> DataManifest:
    """Read `manifest.json` of a data set.

    Raises:
        DataError: the folder holds no manifest.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(f"{path}: not found; expected a data set here: run `dvc pull data.dvc`")
    return DataManifest.read(path)


def read_examples(folder: Path) -> pa.Table:
    """Read all examples of a data set as one table of SCHEMA, in the manifest's order.

    Raises:
        DataError: a shard is missing, altered, unreadable, or has other columns or types than SCHEMA.
    """
    shards = read_manifest(folder).shards
    if not shards:
        raise DataError(f"{folder / 'manifest.json'}: lists no shard; expected at least one")
    return pa.concat_tables(read_shard(folder, shard) for shard in shards)


def read_shard(folder: Path, shard: Shard) -> pa.Table:
    """Read one shard, digest and schema checked."""
    path = folder / shard.file
    if not path.is_file():
        raise DataError(f"{path}: listed in manifest.json but not found; run `dvc checkout data.dvc`")
    if (found := sha256_of(path)) != shard.sha256:
        raise DataError(
            f"{path}: sha256 {found[:12]}… is not the manifest's {shard.sha256[:12]}…; "
            "the shard was altered: restore it with `dvc checkout --force data.dvc`"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    _check_schema(path, table.schema)
    if table.num_rows != shard.rows:
        raise DataError(f"{path}: {table.num_rows} rows; the manifest says {shard.rows}")
    return table.select(SCHEMA.names).cast(SCHEMA)


def _check_schema(path: Path, found: pa.Schema) -> None:
    problems = [f"column {name!r} is missing" for name in SCHEMA.names if name not in found.names]
    problems += [f"column {name!r} is not known" for name in found.names if name not in SCHEMA.names]
    problems += [
        f"column {name!r} has type {found.field(name).type}; expected {SCHEMA.field(name).type}"
        for name in SCHEMA.names
        if name in found.names and not found.field(name).type.equals(SCHEMA.field(name).type)
    ]
    if problems:
        raise DataError(f"{path}: broken schema: {'; '.join(problems)}")


def write_shard(folder: Path, table: pa.Table, number: int) -> Shard:
    """Write `table` as shard `number`, named by number and digest, and return its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"shard-{number:05d}.part"
    write_table(table, part)
    digest = sha256_of(part)
    path = folder / f"shard-{number:05d}-{digest[:12]}.parquet"
    part.replace(path)
    return Shard(file=path.name, sha256=digest, rows=table.num_rows)


def write_data_set(folder: Path, name: str, task: str, labels: Sequence[str], tables: Sequence[pa.Table]) -> None:
    """Write a data set of one shard per table, the manifest last."""
    shards = [write_shard(folder, table, number) for number, table in enumerate(tables)]
    rows = sum(shard.rows for shard in shards)
    DataManifest(name=name, task=task, labels=list(labels), rows=rows, shards=shards).write(folder / "manifest.json")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of SCHEMA or of a superset of it, the same bytes for the same rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_index=False)
