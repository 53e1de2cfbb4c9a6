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
from fuseline.data.duplicates import Bools, Ints, Links, find_links, read_contents, spread_pictures
from fuseline.data.facts import workers
from fuseline.data.leakage import report
from fuseline.data.pins import make_pins, read_pins, without_pins, write_pins
from fuseline.data.rewrite import drop_unlisted
from fuseline.data.shards import read_manifest
from fuseline.data.split import ABSENT, HELD_OUT, SPLITS, Arrivals, Codes, deal, find_families
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
    views = spread_pictures(rows.facts)
    contents = read_contents(views.facts, settings.duplicates)
    links = views.to_rows(find_links(contents, settings.duplicates.match))
    dealing = deal(rows.arrivals, links, settings)
    sound_N = rows.live_N.copy()
    sound_N[quarantined] = False
    held_out = [one for one in dealing.held_out if sound_N[one.row]]
    splits_N = np.where(sound_N & (dealing.splits_N != HELD_OUT), dealing.splits_N, ABSENT).astype(np.int8)
    leakage = report(rows.names["id"], rows.arrivals.groups_N, splits_N, links, views, contents, held_out)
    return Prepared(splits_N, len(held_out), leakage, links)


# --- deletions ----------------------------------------------------------------------------------------------------


@contextmanager
def keeping_splits(folder: Path, settings: Prepare) -> Iterator[None]:
    """Pin the examples that the block's deletions from the data set would move from their split."""
    before, links = _read(folder, settings)
    was_N = deal(before.arrivals, links, settings).splits_N
    yield
    after, links = _read(folder, settings)
    stayed = pc.is_in(before.names["id"], value_set=after.names["id"].combine_chunks()).to_numpy()
    pins_N = pin_rows(after.arrivals, links, settings, was_N[stayed])
    ids, manifest = after.names["id"], read_manifest(folder)
    new = make_pins(ids, pins_N, settings)
    old = read_pins(folder, manifest)
    kept = without_pins(old.filter(pc.is_in(old["id"], value_set=ids.combine_chunks())), new)
    entry = write_pins(folder, pa.concat_tables([kept, new]))
    manifest.model_copy(update={"pinned_splits": entry}).write(folder / "manifest.json")
    drop_unlisted(folder)


def _read(folder: Path, settings: Prepare) -> tuple[Rows, Links]:
    with workers() as pool:
        rows = read_rows(folder, read_manifest(folder), settings, False, pool)
    views = spread_pictures(rows.facts)
    return rows, views.to_rows(find_links(read_contents(views.facts, settings.duplicates), settings.duplicates.match))


def pin_rows(arrivals: Arrivals, links: Links, settings: Prepare, was_N: Codes) -> Codes:
    """Find the rows that have to be pinned lest one leaves its split, or two of a family part.

    Superseded rows count as well: later ones may be tied to them. What was held out may join a split, unless its family
    is in several then: it stays held out. Rows that a pin would draw along are pinned as well.

    Args:
        was_N: where each row was, HELD_OUT included.

    Returns:
        Where each row is to be pinned, HELD_OUT included; ABSENT for rows that are not.
    """
    family_N, pins_N = find_families(arrivals, links), np.full(len(was_N), ABSENT, np.int8)
    while True:
        splits_N = deal(arrivals, links, settings).splits_N
        moved_N = (splits_N != was_N) & (pins_N == ABSENT)
        back_N = moved_N & (was_N != HELD_OUT)
        if not back_N.any():  # only now is it known which splits the families are in
            back_N = moved_N & _find_torn(family_N, splits_N)
        if not back_N.any():
            return pins_N
        pins_N[back_N] = was_N[back_N]
        arrivals = replace(arrivals, pinned_N=np.where(pins_N != ABSENT, pins_N, arrivals.pinned_N))


def _find_torn(family_N: Ints, splits_N: Codes) -> Bools:
    """Say which rows are of a family that is in several splits."""
    there_KS = np.zeros((len(family_N), len(SPLITS)), bool)
    placed = np.flatnonzero(splits_N != HELD_OUT)
    there_KS[family_N[placed], splits_N[placed]] = True
    torn_N: Bools = there_KS.sum(1)[family_N] > 1
    return torn_N
