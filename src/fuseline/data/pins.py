"""Pinned splits: where examples stay that were there because of others, which are forgotten now.

An example may be in a split because it repeats another, or shares a group with it. When that other one is deleted, the
hash alone would deal it anew, from training to test perhaps. So its split is written down beside the shards; that
counts as long as the settings do which it was dealt by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Prepare
from fuseline.data.rewrite import name_file
from fuseline.data.shards import check_file, open_writer
from fuseline.data.split import ABSENT, SPLITS, Codes
from fuseline.records import DataFile, DataManifest

SCHEMA = pa.schema([("id", pa.string()), ("split", pa.string()), ("settings", pa.string())])


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


def make_pins(ids: Sequence[str], splits: Codes, settings: Prepare) -> pa.Table:
    """Return a pin for each id."""
    names = [SPLITS[code] for code in splits.tolist()]
    return pa.table([list(ids), names, [_digest(settings)] * len(names)], schema=SCHEMA)


def without_pins(pins: pa.Table, newer: pa.Table) -> pa.Table:
    """Return the pins but for those that newer ones take the place of: of the same id, under the same settings."""
    same = pc.is_in(pins["settings"], value_set=newer["settings"].combine_chunks())
    replaced = pc.and_(same, pc.is_in(pins["id"], value_set=newer["id"].combine_chunks()))
    return pins.filter(pc.invert(replaced))


def find_pins(pins: pa.Table, ids: pa.ChunkedArray, settings: Prepare) -> Codes:
    """Return the split that each row is pinned to under these settings; ABSENT for none."""
    pins = pins.filter(pc.equal(pins["settings"], _digest(settings)))
    at = pc.index_in(ids, value_set=pins["id"].combine_chunks())
    codes = pc.index_in(pins["split"], value_set=pa.array(SPLITS)).combine_chunks()
    return codes.take(at.combine_chunks()).fill_null(ABSENT).to_numpy().astype(np.int8)  # type: ignore[no-any-return]


DEALT_BY = {"salt", "val", "test", "val_from_train", "duplicates"}
"""Settings that rows are dealt by. Freezing the test split moves nothing by itself."""


def _digest(settings: Prepare) -> str:
    return hashlib.sha256(settings.model_dump_json(include=DEALT_BY).encode()).hexdigest()[:16]
