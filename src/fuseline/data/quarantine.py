"""Rows that were not accepted: looked at, and taken in after all.

Pure functions of files, as `intake`. No row is lost on the way: it is accepted, or stays where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Task, Validate
from fuseline.data.contract import build_rules
from fuseline.data.facts import digests
from fuseline.data.intake import READING, Taken, held_rows, take_in
from fuseline.data.rewrite import QUARANTINE, TOLD, complete, drop_unlisted, keep_quarantined
from fuseline.data.shards import FILES, SCHEMA, WIDE, check_file, iter_file, read_manifest
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE


@dataclass(frozen=True)
class Refused:
    """The quarantined rows of one batch."""

    number: int
    source: str
    rows: pa.Table
    """Without the files' bytes, as `rewrite.QUARANTINE`."""

    @property
    def rules(self) -> Counter[str]:
        """How many rows broke each rule."""
        return Counter(rule for rules in self.rows["rules"].to_pylist() for rule in rules)


def read_refused(folder: Path) -> list[Refused]:
    """Return the quarantined rows of a data set, batch by batch."""
    columns = [name for name in QUARANTINE.names if name not in (*FILES, MORE)]
    return [
        Refused(
            number,
            shard.source or shard.file,
            pq.read_table(check_file(folder, shard.quarantine, TOLD), columns=columns),
        )
        for number, shard in enumerate(read_manifest(folder).shards)
        if shard.quarantine is not None
    ]


def release(
    folder: Path, task: Task, rules: Validate, ids: Sequence[str] = (), batch: int | None = None,
    waive: Sequence[str] = (),
) -> Taken:  # fmt: skip
    """Take quarantined rows in after all: those that pass the contract as it is now, or whose rules are waived.

    Args:
        ids: of the rows; none means all of `batch`.
        batch: number of the batch; None means any.
        waive: rules to release them from.

    Raises:
        DataError: no such row, a rule that cannot be waived, a row that still breaks another rule, or one in whose
            place another was accepted since. The folder then has to be thrown away.
    """
    soft = [rule.key for rule in build_rules(rules) if rule.soft]
    if hard := sorted(set(waive) - set(soft)):
        raise DataError(f"{', '.join(hard)}: cannot be waived; rules that can: {', '.join(soft)}")
    drafts = _take_out(folder, ids, batch)
    all_told = rules.model_copy(update={"max_quarantined": 1.0})  # of what still breaks a rule is told below
    source = "released from quarantine"
    taken = take_in(folder, drafts, source, task, all_told, waive, allow_forgotten=True, known=False)
    if taken.quarantined:
        raise DataError(
            f"{taken.quarantined:,} of {taken.read:,} rows still break the contract; nothing was released. "
            f"The first: {taken.examples[0]}"
        )
    assert taken.accepted + taken.unchanged == taken.read
    drop_unlisted(folder)
    return taken


def _take_out(folder: Path, ids: Sequence[str], batch: int | None) -> Iterator[pa.Table]:
    """Strike rows from the quarantine of a data set; return them as drafts."""
    manifest = read_manifest(folder)
    shards, files, found = list(manifest.shards), list[Path](), set[str]()
    for number, shard in enumerate(shards):
        if shard.quarantine is None or batch not in (None, number):
            continue
        path = check_file(folder, shard.quarantine, TOLD)
        names = pq.read_table(path, columns=["id"])["id"]
        wanted = _wanted(names, ids)
        if not pc.any(wanted).as_py():
            continue
        held = held_rows(folder, manifest, names.filter(wanted).drop_null().to_pylist())
        for rows in _chosen(path, ids):
            _refuse_replaced(rows, held, number)
        files.append(path)
        found |= set(names.to_pylist())
        shards[number] = keep_quarantined(folder, number, shard, pc.invert(wanted))
    if missing := sorted(set(ids) - found):
        raise DataError(
            f"no quarantined row has the id {', '.join(missing[:5])}; `fuseline quarantine show` tells what there is"
        )
    if not files:
        raise DataError("no quarantined row was named; `fuseline quarantine list` shows what there is")
    manifest.model_copy(update={"shards": shards}).write(folder / "manifest.json")
    return (_to_draft(rows) for path in files for rows in _chosen(path, ids))


def _wanted(names: pa.ChunkedArray, ids: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(names, value_set=pa.array(ids, pa.string())) if ids else pc.true_unless_null(names)


def _chosen(path: Path, ids: Sequence[str]) -> Iterator[pa.Table]:
    for rows in iter_file(pq.ParquetFile(path, pre_buffer=False)):
        table = complete(pa.Table.from_batches([rows]), QUARANTINE)
        yield table.filter(_wanted(table["id"], ids))


def _refuse_replaced(rows: pa.Table, held: pd.DataFrame, number: int) -> None:
    """Refuse rows of a batch whose id was accepted with other content, in the same batch or since.

    Raises:
        DataError: to release them would put the older in place of the newer.
    """
    standing = held.reindex(rows["id"].to_pylist())
    newer = (standing["shard"] >= number).to_numpy()
    other = (standing["digest"] != digests(rows.select(WIDE.names))).to_numpy()
    if stale := sorted(set(rows["id"].filter(pa.array(newer & other)).to_pylist())):
        raise DataError(
            f"id {', '.join(stale[:5])}: the data set took in another row of that id after this one; nothing was "
            "released. If this one is right, send it in a batch of its own"
        )


def _to_draft(quarantined: pa.Table) -> pa.Table:
    """Turn quarantined rows back into a draft; what the batch got wrong in reading them still stands."""
    unread = [
        "; ".join(why for rule, why in zip(rules, reasons, strict=True) if rule == READING) or None
        for rules, reasons in zip(quarantined["rules"].to_pylist(), quarantined["reasons"].to_pylist(), strict=True)
    ]
    columns = {name: quarantined[name] for name in SCHEMA.names}
    for name in FILES:
        columns[name] = pc.struct_field(columns[name], "bytes")
    columns[MORE] = pa.array(
        [files and [file["bytes"] for file in files] for files in quarantined[MORE].to_pylist()], pa.list_(pa.binary())
    )
    columns[BOXES] = quarantined[BOXES]
    return pa.table({**columns, "where": quarantined["where"], "problem": pa.array(unread, pa.string())})
