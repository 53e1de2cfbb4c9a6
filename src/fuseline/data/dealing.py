"""Deal a data set's rows to the splits, from what was read of them to the report on leaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuseline.config import Prepare
from fuseline.data.arrivals import Rows
from fuseline.data.duplicates import Ints, Links, find_links, read_contents
from fuseline.data.leakage import report
from fuseline.data.split import ABSENT, HELD_OUT, Codes, deal
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
