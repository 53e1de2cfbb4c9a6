"""Read what the split goes by, of all rows that ever came in: names and facts, no picture and no sound."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Prepare
from fuseline.data.duplicates import COLUMNS, Bools
from fuseline.data.facts import read_facts
from fuseline.data.pins import find_pins, read_pins
from fuseline.data.shards import live_rows, read_shard
from fuseline.data.split import SPLITS, Arrivals, Codes
from fuseline.errors import DataError
from fuseline.progress import Progress
from fuseline.records import DataManifest, Shard

NAMES = ("id", "group", "split", "target")


@dataclass(frozen=True)
class Rows:
    """All rows in order of arrival."""

    names: pa.Table
    """Columns NAMES; targets only where they are asked for."""
    facts: pa.Table
    live_N: Bools
    """Which rows no later one has replaced."""
    arrivals: Arrivals


def read_rows(
    folder: Path, manifest: DataManifest, settings: Prepare, targets: bool, pool: ProcessPoolExecutor | None
) -> Rows:
    """Read all shards, one at a time, and the pins that count under the settings.

    Raises:
        DataError: there are none.
    """
    if not manifest.shards:
        raise DataError(f"{folder / 'manifest.json'}: lists no shard; expected at least one")
    columns = NAMES if targets else NAMES[:-1]
    names, facts, progress = [], [], Progress("splits: reading", len(manifest.shards))
    for done, shard in enumerate(manifest.shards, start=1):
        names.append(read_shard(folder, shard, columns))
        facts.append(_without_pairs(folder, shard, read_facts(folder, shard, pool, [*COLUMNS, "text_chars"])))
        progress.at(done)
    masks = live_rows([table["id"] for table in names], [shard.supersedes for shard in manifest.shards])
    live = [np.ones(len(t), bool) if m is None else m.to_numpy() for t, m in zip(names, masks, strict=True)]
    whole = pa.concat_tables(names)
    pinned_N = find_pins(read_pins(folder, manifest), whole["id"], settings)
    arrivals = number_rows(whole, [len(t) for t in names], pinned_N)
    return Rows(whole, pa.concat_tables(facts), np.concatenate(live), arrivals)


def _without_pairs(folder: Path, shard: Shard, facts: pa.Table) -> pa.Table:
    """Forget the thumbnails of pairs of pictures: they show the first alone, so a pair is compared by its pixels."""
    file = pq.ParquetFile(folder / shard.file)
    if "image_pair" not in file.schema_arrow.names:
        return facts
    paired = file.read(columns=["image_pair.path"])["image_pair"].is_valid()
    at = facts.column_names.index("thumbnail")
    return facts.set_column(at, "thumbnail", pc.if_else(paired, None, facts["thumbnail"]))


def number_rows(names: pa.Table, sizes: list[int], pinned_N: Codes) -> Arrivals:
    """Replace ids, groups and splits by numbers; a blank group counts as none."""
    groups = names["group"]
    groups = pc.if_else(pc.equal(pc.utf8_trim_whitespace(groups), ""), None, groups)
    ids_N, _ = _encode(names["id"])
    groups_N, names_G = _encode(groups)
    declared_N = pc.index_in(names["split"], value_set=pa.array(SPLITS)).fill_null(-1).to_numpy().astype(np.int8)
    return Arrivals(sizes, ids_N, groups_N, names_G, declared_N, pinned_N)


def _encode(column: pa.ChunkedArray) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    """Return a number for each value, in order of appearance and -1 for null, and what the numbers stand for."""
    if not len(column):
        return np.zeros(0, np.int64), []
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
