"""Deal a data set's rows to the splits, from what was read of them to the report on leaks; keep them there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuseline.config import Prepare
from fuseline.data.arrivals import Rows, read_rows
from fuseline.data.duplicates import Bools, Ints, Links, find_links, read_contents
from fuseline.data.facts import workers
from fuseline.data.leakage import report
from fuseline.data.pins import make_pins, read_pins, without_pins, write_pins
from fuseline.data.rewrite import drop_unlisted
from fuseline.data.shards import read_manifest
from fuseline.data.split import ABSENT, HELD_OUT, Arrivals, Codes, deal
from fuseline.records import Leakage


@dataclass(frozen=True)
class Prepared:
    """Where each row goes, of all that ever came in."""

    splits_N: Codes
    """ABSENT for rows in no split: superseded, in quarantine or held out."""
    held_out: int
    leakage: Leakage
    links: Links
    """The rows that repeat earlier ones, those in no split too."""


def deal_rows(rows: Rows, settings: Prepare, quarantined: Ints) -> Prepared:
    """Deal all rows, those in quarantine too, so that no change of the contract moves others; then leave these out."""
    contents = read_contents(rows.facts, settings.duplicates)
    links = find_links(contents, settings.duplicates.match)
    dealing = deal(rows.arrivals, links, settings)
    sound_N = rows.live_N.copy()
    sound_N[quarantined] = False
    held_out = [one for one in dealing.held_out if sound_N[one.row]]
    splits_N = np.where(sound_N & (dealing.splits_N != HELD_OUT), dealing.splits_N, ABSENT).astype(np.int8)
    leakage = report(rows.names["id"], rows.arrivals.groups_N, splits_N, links, contents, held_out)
    return Prepared(splits_N, len(held_out), leakage, links)


# --- deletions ----------------------------------------------------------------------------------------------------


@contextmanager
def keeping_splits(folder: Path, settings: Prepare) -> Iterator[None]:
    """Pin the examples that the block's deletions from the data set would move from their split."""
    before, links = _read(folder, settings)
    was_N = deal(before.arrivals, links, settings).splits_N
    yield
    after, links = _read(folder, settings)
    home_N = _look_up(before, was_N, after)
    moved_N = find_moved(after.arrivals, links, settings, home_N)
    manifest = read_manifest(folder)
    ids = after.names["id"]
    old = read_pins(folder, manifest)
    new = make_pins(ids.filter(pa.array(moved_N)).to_pylist(), home_N[moved_N], settings)
    kept = without_pins(old.filter(pc.is_in(old["id"], value_set=ids.combine_chunks())), new)
    entry = write_pins(folder, pa.concat_tables([kept, new]))
    manifest.model_copy(update={"pinned_splits": entry}).write(folder / "manifest.json")
    drop_unlisted(folder)


def _read(folder: Path, settings: Prepare) -> tuple[Rows, Links]:
    with workers() as pool:
        rows = read_rows(folder, read_manifest(folder), settings, False, pool)
    return rows, find_links(read_contents(rows.facts, settings.duplicates), settings.duplicates.match)


def _look_up(before: Rows, was_N: Codes, after: Rows) -> Codes:
    """Return the split that each row which stands was in; ABSENT for the others."""
    stood = pa.array(before.live_N)
    at = pc.index_in(after.names["id"], value_set=before.names["id"].filter(stood).combine_chunks())
    found_N = pa.array(was_N).filter(stood).take(at.combine_chunks()).fill_null(ABSENT).to_numpy()
    return np.where(after.live_N & (found_N != HELD_OUT), found_N, ABSENT).astype(np.int8)


def find_moved(arrivals: Arrivals, links: Links, settings: Prepare, home_N: Codes) -> Bools:
    """Find the rows that would leave their split unless they were pinned to it.

    Whom such a pin draws along is found as well. A row that was in no split may join one.

    Args:
        home_N: the split that each row was in; ABSENT for rows that were in none, or do not stand.
    """
    moved_N = np.zeros(len(home_N), bool)
    while (leaves_N := (home_N != ABSENT) & (deal(arrivals, links, settings).splits_N != home_N)).any():
        moved_N |= leaves_N
        pins_I = np.full(int(arrivals.ids_N.max()) + 1, ABSENT, np.int8)  # of each id, for all its versions
        pins_I[arrivals.ids_N[moved_N]] = home_N[moved_N]
        pinned_N = np.where(pins_I[arrivals.ids_N] != ABSENT, pins_I[arrivals.ids_N], arrivals.pinned_N)
        arrivals = replace(arrivals, pinned_N=pinned_N)
    return moved_N
