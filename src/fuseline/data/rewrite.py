"""Write the files of a data set anew without some of their rows, and drop those that no manifest lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.data import facts as fact
from fuseline.data.shards import (
    WIDE,
    check_file,
    iter_file,
    name_shard,
    open_writer,
    read_manifest,
    read_shard,
    schema_with,
)
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE
from fuseline.records import DataFile, DataManifest, Shard, sha256_of

QUARANTINE = pa.schema([*WIDE, pa.field("where", pa.string()), pa.field("rules", pa.list_(pa.string())),
                        pa.field("reasons", pa.list_(pa.string()))])  # fmt: skip
"""Rows that were not accepted: where each stood in its batch, the rules it broke, and how."""
TOLD = ("id", "where", "rules", "reasons")
"""Columns that every quarantine has, whatever was added since."""


def keep_accepted(folder: Path, number: int, shard: Shard, keep: pa.ChunkedArray) -> Shard:
    """Write a shard and its facts anew with the rows to keep."""
    facts = fact.read_facts(folder, shard).filter(keep)
    part = folder / "shard.part"
    boxes = read_shard(folder, shard, [BOXES])[BOXES].filter(keep)
    needed = {MORE: facts[fact.PICTURES], BOXES: boxes}
    given = [name for name, cells in needed.items() if cells.null_count < len(cells)]
    _copy(folder / shard.file, part, schema_with(given), keep)
    kept = name_shard(part, number, facts.num_rows)
    return shard.model_copy(update={
        "file": kept.file, "sha256": kept.sha256, "rows": kept.rows, "facts": write_facts(folder, number, facts),
    })  # fmt: skip


def keep_quarantined(folder: Path, number: int, shard: Shard, keep: pa.ChunkedArray) -> Shard:
    """Write a shard's quarantine anew with the rows to keep; drop it where none is left."""
    assert shard.quarantine is not None
    left = int(pc.sum(keep).as_py() or 0)
    if not left:
        return shard.model_copy(update={"quarantine": None})
    part = folder / "quarantine.part"
    _copy(check_file(folder, shard.quarantine, TOLD), part, QUARANTINE, keep)
    return shard.model_copy(update={"quarantine": name_file(part, f"quarantine-{number:05d}", left)})


def _copy(source: Path, target: Path, schema: pa.Schema, keep: pa.ChunkedArray) -> None:
    """Copy the rows to keep of a Parquet file, in bounded memory."""
    offset = 0
    with open_writer(target, schema) as writer:
        for rows in iter_file(pq.ParquetFile(source, pre_buffer=False)):
            table = pa.Table.from_batches([rows]).filter(keep.slice(offset, len(rows)))
            offset += len(rows)
            writer.write_table(complete(table, schema))


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a schema; those that the table lacks, being older than them, are null."""
    for name in [name for name in schema.names if name not in table.column_names]:
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return table.select(schema.names).cast(schema)


def write_facts(folder: Path, number: int, facts: pa.Table) -> DataFile:
    """Write the facts of shard `number`."""
    part = folder / "facts.part"
    schema = fact.SCHEMA
    if facts[fact.PICTURES].null_count == facts.num_rows:
        schema = schema.remove(schema.get_field_index(fact.PICTURES))
    with open_writer(part, schema) as writer:
        writer.write_table(facts.select(schema.names))
    return name_file(part, f"facts-{number:05d}", facts.num_rows)


def name_file(part: Path, stem: str, rows: int) -> DataFile:
    """Give a written file its name, and return its entry."""
    digest = sha256_of(part)
    path = part.with_name(f"{stem}-{digest[:12]}.parquet")
    part.replace(path)
    return DataFile(file=path.name, sha256=digest, rows=rows)


def recount(folder: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Count again how many older rows each shard replaces."""
    seen: set[str] = set()
    counted = []
    for shard in shards:
        ids = set(read_shard(folder, shard, ["id"])["id"].to_pylist())
        counted.append(shard.model_copy(update={"supersedes": len(ids & seen)}))
        seen |= ids
    return counted


def drop_unlisted(folder: Path) -> None:
    """Remove the files that the manifest does not list."""
    for path in set(folder.iterdir()) - {folder / name for name in listed_files(read_manifest(folder))}:
        path.unlink()


def listed_files(manifest: DataManifest) -> Iterator[str]:
    """Yield the names of all files of a data set."""
    yield "manifest.json"
    yield from (file.file for file in (manifest.forgotten_digests, manifest.pinned_splits) if file is not None)
    for shard in manifest.shards:
        yield shard.file
        yield from (beside.file for beside in (shard.facts, shard.quarantine) if beside is not None)
