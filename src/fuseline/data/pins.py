"""Pinned splits: where examples stay that were there because of others, which are forgotten now.

An example may be in a split because it repeats another, or shares a group with it. When that other one is deleted, the
hash alone would deal it anew, from training to test perhaps. So its split is written down beside the shards, or that it
was held out, where it would join another split than its like; that counts as long as the settings do which it was dealt
by. Each version of an example has a pin of its own: one may have been held out for what it shows, the next one not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fuseline.config import DEALT_BY, Prepare
from fuseline.data.rewrite import name_file
from fuseline.data.shards import check_file, open_writer
from fuseline.data.split import ABSENT, SPLITS, Codes
from fuseline.records import DataFile, DataManifest

NAMES = (*SPLITS, "none")
"""What a pin says: by the number of a split, or of HELD_OUT."""
SCHEMA = pa.schema([("id", pa.string()), ("version", pa.int64()), ("split", pa.string()), ("settings", pa.string())])


def read_pins(folder: Path, manifest: DataManifest) -> pa.Table:
    """Return all pins of a data set, columns SCHEMA.

    Raises:
        DataError: their file is missing or altered.
    """
    if manifest.pinned_splits is None:
        return SCHEMA.empty_table()
    return pq.read_table(check_file(folder, manifest.pinned_splits, SCHEMA.names)).cast(SCHEMA)


def write_pins(folder: Path, pins: pa.Table) -> DataFile | None:
    """Write pins, and return their entry in the manifest; None where there are none."""
    if not len(pins):
        return None
    part = folder / "pins.part"
    with open_writer(part, SCHEMA) as writer:
        writer.write_table(pins)
    return name_file(part, "pins", len(pins))


def make_pins(ids: pa.ChunkedArray, splits_N: Codes, settings: Prepare) -> pa.Table:
    """Return a pin for each row that has a split, or HELD_OUT, and is not ABSENT."""
    pinned = np.flatnonzero(splits_N != ABSENT)
    splits = [NAMES[code] for code in splits_N[pinned].tolist()]
    versions = pa.array(_number_versions(ids)[pinned])
    return pa.table([ids.take(pinned), versions, splits, [_digest(settings)] * len(splits)], schema=SCHEMA)


def without_pins(pins: pa.Table, newer: pa.Table) -> pa.Table:
    """Return the pins but for those that newer ones take the place of: of the same row, under the same settings."""
    same = pc.is_in(pins["settings"], value_set=newer["settings"].combine_chunks())
    rows = _key(newer["id"], newer["version"]).combine_chunks()
    return pins.filter(pc.invert(pc.and_(same, pc.is_in(_key(pins["id"], pins["version"]), value_set=rows))))


def find_pins(pins: pa.Table, ids: pa.ChunkedArray, settings: Prepare) -> Codes:
    """Return where each row is pinned under these settings; ABSENT for rows that are not."""
    pins = pins.filter(pc.equal(pins["settings"], _digest(settings)))
    if not len(pins):
        return np.full(len(ids), ABSENT, np.int8)
    rows = _key(ids.combine_chunks(), pa.array(_number_versions(ids)))
    at = pc.index_in(rows, value_set=_key(pins["id"], pins["version"]).combine_chunks())
    codes = pc.index_in(pins["split"], value_set=pa.array(NAMES)).combine_chunks()
    return codes.take(at).fill_null(ABSENT).to_numpy().astype(np.int8)  # type: ignore[no-any-return]


def _number_versions(ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return of each row how many of its id came before it: a deletion takes all, so that these numbers stand."""
    codes_N = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes_N, kind="stable")
    versions_N = np.empty(len(codes_N), np.int64)
    versions_N[order] = np.arange(len(order)) - np.searchsorted(codes_N[order], codes_N[order])
    return versions_N


def _key(ids: pa.ChunkedArray | pa.Array, versions: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return one string for an id's version."""
    return pc.binary_join_element_wise(versions.cast(pa.string()), ids, " ")


def _digest(settings: Prepare) -> str:
    return hashlib.sha256(settings.model_dump_json(include=DEALT_BY).encode()).hexdigest()[:16]
