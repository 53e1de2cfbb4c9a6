"""Read what the numbers are made of, of all rows of a data set: scalars and facts, no picture and no sound.

Shape letters: N rows in order of arrival, superseded ones included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fuseline.data import facts
from fuseline.data.facts import read_facts, workers
from fuseline.data.shards import FILES, live_rows, open_shard, read_manifest, read_shard
from fuseline.records import DataManifest, Shard

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FACTS = ("digest", "text_chars", "text_key", "image_error", "short_side", "long_side", "image_key", "audio_error",
         "audio_seconds", "audio_key")  # fmt: skip
MODALITIES = ("text", "text_pair", *FILES)
SCHEMA = pa.schema([
    ("id", pa.string()), ("target", pa.string()), ("pair_chars", pa.int32()),
    *((name, facts.SCHEMA.field(name).type) for name in FACTS), *((f"has_{name}", pa.bool_()) for name in MODALITIES),
])  # fmt: skip


@dataclass(frozen=True)
class Held:
    """All rows of a version of the data set, in order of arrival."""

    folder: Path
    manifest: DataManifest
    table: pa.Table
    """Of SCHEMA."""
    live_N: Bools
    """Which rows no later one has replaced."""

    @cached_property
    def live(self) -> pa.Table:
        """The rows that stand."""
        return self.table.filter(pa.array(self.live_N))

    @cached_property
    def rows(self) -> Ints:
        """Numbers of the rows that stand."""
        return np.flatnonzero(self.live_N)


def read(folder: Path) -> Held:
    """Read a data set, one shard at a time.

    Raises:
        DataError: a shard is missing or altered.
    """
    manifest = read_manifest(folder)
    with workers() as pool:
        tables = [_read_shard(folder, shard, read_facts(folder, shard, pool, FACTS)) for shard in manifest.shards]
    masks = live_rows([table["id"] for table in tables], [shard.supersedes for shard in manifest.shards])
    live = [np.ones(len(t), bool) if m is None else m.to_numpy() for t, m in zip(tables, masks, strict=True)]
    return Held(
        folder, manifest, pa.concat_tables([SCHEMA.empty_table(), *tables]), np.concatenate([np.zeros(0, bool), *live])
    )


def _read_shard(folder: Path, shard: Shard, found: pa.Table) -> pa.Table:
    scalars = read_shard(folder, shard, ["id", "target", "text_pair"])
    has = {"text": found["text_chars"].is_valid(), "text_pair": scalars["text_pair"].is_valid()}
    file = open_shard(folder, shard)
    has |= {name: _has(file, name, shard.rows) for name in FILES}
    chars = pc.utf8_length(pc.utf8_trim_whitespace(scalars["text_pair"])).cast(pa.int32())
    columns = {"id": scalars["id"], "target": scalars["target"], "pair_chars": chars}
    columns |= {name: found[name] for name in FACTS} | {f"has_{name}": column for name, column in has.items()}
    return pa.table(columns, schema=SCHEMA)


def _has(file: pq.ParquetFile, name: str, rows: int) -> pa.ChunkedArray:
    """Say which rows hold a file, without reading any: of its two fields the path is enough."""
    if name not in file.schema_arrow.names:
        return pa.chunked_array([pa.repeat(False, rows)])
    return file.read(columns=[f"{name}.path"])[name].is_valid()
