"""Take a batch in: what becomes a shard, what goes to quarantine, what was there already.

A pure function of files: it writes the next version of a data set into a folder that holds the present one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Task, Validate
from fuseline.data import facts as fact
from fuseline.data.contract import SCALARS, check_rows, describe
from fuseline.data.shards import (
    BATCH_ROWS,
    FILES,
    SCHEMA,
    live_rows,
    name_shard,
    open_writer,
    read_manifest,
    read_shard,
)  # fmt: skip
from fuseline.errors import DataError
from fuseline.records import DataFile, DataManifest, Shard, sha256_of

QUARANTINE = pa.schema([*SCHEMA, pa.field("where", pa.string()), pa.field("rules", pa.list_(pa.string())),
                        pa.field("reasons", pa.list_(pa.string()))])  # fmt: skip
"""Rows that were not accepted: where each stood in its batch, the rules it broke, and how."""
READING = "reading"
"""Rule of what the batch itself got wrong: a missing file, a line that is not JSON."""


@dataclass(frozen=True)
class Taken:
    """What a batch came to."""

    read: int
    accepted: int
    unchanged: int
    """Rows that the data set, or the batch itself further up, holds already."""
    superseded: int
    """Accepted rows that replace an older one of the same id."""
    quarantined: int
    known_as: str | None = None
    """The shard that the very same batch became before."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How often each reason was given."""
    targets: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """The first quarantined rows, in words."""

    @property
    def changes(self) -> bool:
        """Whether the data set becomes another."""
        return self.known_as is None and self.accepted + self.quarantined > 0


@dataclass
class Batch:
    """A batch as it was read: its rows in a file, what is known of them in memory."""

    file: Path
    frame: pd.DataFrame
    facts: pa.Table
    problems: list[str | None]
    where: list[str | None]

    @property
    def digest(self) -> str:
        """Digest of the rows, whatever they were read from."""
        whole = hashlib.sha256()
        for cells in (self.frame["id"].tolist(), self.problems):
            whole.update(np.array([-1 if cell is None else len(cell) for cell in cells], "<i8").tobytes())
            whole.update("".join(filter(None, cells)).encode())
        whole.update(b"".join(self.facts["digest"].to_pylist()))
        return whole.hexdigest()


def begin(folder: Path, name: str, task: Task) -> None:
    """Write the manifest of an empty data set."""
    DataManifest(name=name, task=task.kind, labels=task.labels, rows=0, shards=[]).write(folder / "manifest.json")


def take_in(
    folder: Path, drafts: Iterable[pa.Table], source: str, task: Task, rules: Validate, waives: Sequence[str] = ()
) -> Taken:
    """Add a batch to the data set in `folder`.

    Args:
        drafts: the batch's rows, as `drafts.DRAFT`.
        source: where the batch came from, for people.
        waives: rules that its rows are released from.

    Raises:
        DataError: too many rows would be quarantined, or the data set is of another task.
    """
    manifest = read_manifest(folder)
    refuse_other_task(manifest, task)
    part = folder / "batch.part"
    try:
        batch = _read(part, drafts, source, task)
        if (known := next((s.file for s in manifest.shards if s.batch == batch.digest), None)) is not None:
            return Taken(len(batch.frame), 0, len(batch.frame), 0, 0, known_as=known)
        reasons = _judge(batch, rules, waives)
        fate = _decide(folder, manifest, batch, reasons)
        taken = _count(batch, reasons, fate)
        _refuse_too_many(taken, rules.max_quarantined)
        if taken.changes:
            shard = _write(folder, len(manifest.shards), batch, reasons, fate)
            entry = shard.model_copy(update={
                "supersedes": taken.superseded, "waives": sorted(waives), "batch": batch.digest, "source": source,
            })  # fmt: skip
            _add(folder, manifest, entry, task, taken)
        return taken
    finally:
        part.unlink(missing_ok=True)


def refuse_other_task(manifest: DataManifest, task: Task) -> None:
    """Refuse to mix examples of two tasks, or of a label that params.yaml no longer knows.

    Raises:
        DataError: they differ.
    """
    if manifest.task != task.kind:
        raise DataError(
            f"data/ holds examples for {manifest.task}, task.kind is {task.kind}; begin a new data set with --new NAME"
        )
    if gone := sorted(set(manifest.labels) - set(task.labels)):
        raise DataError(
            f"data/ holds labels that task.labels of params.yaml lacks: {', '.join(gone[:5])}; "
            "add them there, or begin a new data set with --new NAME"
        )


def _read(part: Path, drafts: Iterable[pa.Table], source: str, task: Task) -> Batch:
    """Copy a batch's rows to a file in bounded memory, and find out what there is to know of each."""
    frames, facts, problems, where = [], [], [], []
    with open_writer(part, SCHEMA, compression="none") as writer, fact.workers() as pool:
        for draft in drafts:
            rows = _to_examples(draft, source)
            found = fact.find_facts(rows, pool)
            rows = _name_rows(rows, found)
            frames.append(describe(rows.select(SCALARS), found, task))
            facts.append(found)
            problems += draft["problem"].to_pylist()
            where += draft["where"].to_pylist()
            writer.write_table(rows)
    empty = pa.Table.from_pylist([], SCHEMA)
    frames = frames or [describe(empty.select(SCALARS), fact.SCHEMA.empty_table(), task)]
    return Batch(part, pd.concat(frames, ignore_index=True), pa.concat_tables(facts or [fact.SCHEMA.empty_table()]),
                 problems, where)  # fmt: skip


def _to_examples(draft: pa.Table, source: str) -> pa.Table:
    columns = {
        name: _as_files(draft[name]) if name in FILES else draft[name].cast(pa.string())
        for name in SCHEMA.names
        if name != "source"
    }
    columns["source"] = pa.repeat(pa.scalar(source, pa.string()), draft.num_rows)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _as_files(column: pa.ChunkedArray) -> pa.Array:
    data = column.combine_chunks().cast(pa.binary())
    paths = pa.nulls(len(data), pa.string())
    return pa.StructArray.from_arrays([data, paths], ["bytes", "path"], mask=data.is_null())


def _name_rows(rows: pa.Table, facts: pa.Table) -> pa.Table:
    """Give rows without an id one that is made of their content, and those without a group their id."""
    made = pa.array([digest.hex() for digest in facts["digest"].to_pylist()], pa.string())
    ids = pc.if_else(rows["id"].is_valid(), rows["id"], made)
    rows = rows.set_column(0, SCHEMA.field("id"), ids)
    return rows.set_column(1, SCHEMA.field("group"), pc.if_else(rows["group"].is_valid(), rows["group"], ids))


def _judge(batch: Batch, rules: Validate, waives: Sequence[str]) -> dict[int, dict[str, str]]:
    """Return each bad row's reasons by rule."""
    reasons = {row: {READING: problem} for row, problem in enumerate(batch.problems) if problem is not None}
    for row, why in check_rows(batch.frame, rules).reasons.items():
        left = {key: reason for key, reason in why.items() if key not in waives and key != "id_unique"}
        if left:
            reasons[row] = reasons.get(row, {}) | left
    return reasons


NEW, NEWER, KNOWN, BAD = range(4)
"""A row's fate: accepted; accepted in place of an older one; held already; quarantined."""


def _decide(
    folder: Path, manifest: DataManifest, batch: Batch, reasons: dict[int, dict[str, str]]
) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Say what becomes of each row; two rows of one id that say different things are both quarantined."""
    rows = pd.DataFrame({"id": batch.frame["id"], "digest": batch.facts["digest"].to_pylist()})
    fate = np.full(len(rows), NEW, np.int8)
    fate[list(reasons)] = BAD
    good = rows[fate != BAD]
    repeated = good.index[good.duplicated()]
    fate[repeated] = KNOWN
    good = good.drop(repeated)
    for row in good.index[good.duplicated("id", keep=False)]:
        reasons[int(row)] = {"id_unique": f"id {rows['id'][row]!r} stands in this batch again, with other content"}
        fate[row] = BAD
    held = held_digests(folder, manifest)
    if not held.empty:
        before = rows["id"].map(held)
        fate[(fate == NEW) & before.notna().to_numpy()] = NEWER
        fate[(fate == NEWER) & (before == rows["digest"]).to_numpy()] = KNOWN
    return fate


def held_digests(folder: Path, manifest: DataManifest) -> pd.Series:
    """Return the digest of each example that stands, by id."""
    ids = [read_shard(folder, shard, ["id"])["id"] for shard in manifest.shards]
    masks = live_rows(ids, [shard.supersedes for shard in manifest.shards])
    parts = []
    for shard, column, mask in zip(manifest.shards, ids, masks, strict=True):
        part = pd.Series(
            fact.read_facts(folder, shard, columns=["digest"])["digest"].to_pylist(),
            index=column.to_pylist(),
            dtype=object,
        )
        parts.append(part if mask is None else part[mask.to_numpy(zero_copy_only=False)])
    return pd.concat(parts) if parts else pd.Series(dtype=object)


def _count(batch: Batch, reasons: Mapping[int, Mapping[str, str]], fate: np.ndarray) -> Taken:
    counts = np.bincount(fate, minlength=4)
    accepted = batch.frame["target"][(fate == NEW) | (fate == NEWER)]
    examples = [
        f"{batch.where[row] or f'row {row}'}: {'; '.join(reasons[row].values())}" for row in sorted(reasons)[:5]
    ]
    return Taken(
        read=len(fate), accepted=int(counts[NEW] + counts[NEWER]), unchanged=int(counts[KNOWN]),
        superseded=int(counts[NEWER]), quarantined=int(counts[BAD]),
        reasons=Counter(_kind(rule, reason) for why in reasons.values() for rule, reason in why.items()),
        targets=Counter(accepted.tolist()), examples=examples,
    )  # fmt: skip


def _kind(rule: str, reason: str) -> str:
    """Cut a reason down to what rows have in common: what it quotes and counts differs from one to the next."""
    common = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\d[\d,.]*", "…", reason.partition(";")[0])
    return f"{rule}: {common[:100]}"


def _refuse_too_many(taken: Taken, allowed: float) -> None:
    if taken.read and taken.quarantined > allowed * taken.read:
        first = "\n  ".join(taken.examples)
        raise DataError(
            f"{taken.quarantined:,} of {taken.read:,} rows would be quarantined "
            f"({taken.quarantined / taken.read:.1%}), at most {allowed:.1%} allowed by validate.max_quarantined; "
            f"nothing was taken in. The first:\n  {first}"
        )


def _write(
    folder: Path, number: int, batch: Batch, reasons: Mapping[int, Mapping[str, str]], fate: np.ndarray
) -> Shard:
    """Write the accepted rows, their facts, and the quarantined rows."""
    keep, bad = (fate == NEW) | (fate == NEWER), fate == BAD
    shard_part, bad_part = folder / "shard.part", folder / "quarantine.part"
    offset = 0
    with open_writer(shard_part, SCHEMA) as accepted, open_writer(bad_part, QUARANTINE) as refused:
        for rows in pq.ParquetFile(batch.file, pre_buffer=False).iter_batches(batch_size=BATCH_ROWS):
            table = pa.Table.from_batches([rows])
            here = slice(offset, offset + len(rows))
            offset += len(rows)
            accepted.write_table(table.filter(pa.array(keep[here])).cast(SCHEMA))
            if bad[here].any():
                numbers = np.flatnonzero(bad[here])
                refused.write_table(_explain(table.take(pa.array(numbers)), numbers + here.start, batch.where, reasons))
    shard = name_shard(shard_part, number, int(keep.sum()))
    facts = _name_file(_write_facts(folder, batch.facts.filter(pa.array(keep))), f"facts-{number:05d}", shard.rows)
    if not bad.any():
        bad_part.unlink()
        return shard.model_copy(update={"facts": facts})
    refused_file = _name_file(bad_part, f"quarantine-{number:05d}", int(bad.sum()))
    return shard.model_copy(update={"facts": facts, "quarantine": refused_file})


def _explain(
    rows: pa.Table, numbers: np.ndarray, where: Sequence[str | None], reasons: Mapping[int, Mapping[str, str]]
) -> pa.Table:
    rows = rows.append_column("where", pa.array([where[n] for n in numbers], pa.string()))
    rows = rows.append_column("rules", pa.array([list(reasons[int(n)]) for n in numbers], pa.list_(pa.string())))
    rows = rows.append_column(
        "reasons", pa.array([list(reasons[int(n)].values()) for n in numbers], pa.list_(pa.string()))
    )
    return rows.cast(QUARANTINE)


def _write_facts(folder: Path, facts: pa.Table) -> Path:
    part = folder / "facts.part"
    with open_writer(part, fact.SCHEMA) as writer:
        writer.write_table(facts)
    return part


def _name_file(part: Path, stem: str, rows: int) -> DataFile:
    digest = sha256_of(part)
    path = part.with_name(f"{stem}-{digest[:12]}.parquet")
    part.replace(path)
    return DataFile(file=path.name, sha256=digest, rows=rows)


def _add(folder: Path, manifest: DataManifest, shard: Shard, task: Task, taken: Taken) -> None:
    manifest.model_copy(update={
        "labels": task.labels, "shards": [*manifest.shards, shard],
        "rows": manifest.rows + taken.accepted - taken.superseded,
    }).write(folder / "manifest.json")  # fmt: skip


# --- forgetting ---------------------------------------------------------------------------------------------------


def forget(folder: Path, ids: Sequence[str]) -> int:
    """Write the data set anew without some examples, in all their versions, quarantined ones too.

    Returns:
        How many of `ids` were found.

    Raises:
        DataError: one of them is not there.
    """
    manifest = read_manifest(folder)
    gone = pa.array(sorted(set(ids)), pa.string())
    shards, found = [], set[str]()
    for number, shard in enumerate(manifest.shards):
        kept, seen = _without(folder, number, shard, gone)
        shards.append(kept)
        found |= seen
    if unknown := sorted(set(ids) - found):
        raise DataError(f"no example has the id {', '.join(unknown[:5])}; nothing was deleted")
    counted = _recount(folder, shards)
    rows = sum(shard.rows - shard.supersedes for shard in counted)
    manifest.model_copy(update={
        "shards": counted, "rows": rows, "forgotten": manifest.forgotten + len(found),
    }).write(folder / "manifest.json")  # fmt: skip
    drop_unlisted(folder)
    return len(found)


def _without(folder: Path, number: int, shard: Shard, gone: pa.Array) -> tuple[Shard, set[str]]:
    """Rewrite a shard and what stands beside it without some ids; return its entry and the ids found."""
    facts = fact.read_facts(folder, shard)
    ids = read_shard(folder, shard, ["id"])["id"]
    hit = pc.is_in(ids, value_set=gone)
    found = set(ids.filter(hit).to_pylist())
    if found:
        part = folder / "shard.part"
        keep = pc.invert(hit).combine_chunks()
        _copy(folder / shard.file, part, SCHEMA, keep)
        kept = name_shard(part, number, shard.rows - len(ids.filter(hit)))
        facts_file = _name_file(_write_facts(folder, facts.filter(keep)), f"facts-{number:05d}", kept.rows)
        shard = shard.model_copy(update={"file": kept.file, "sha256": kept.sha256, "rows": kept.rows,
                                         "facts": facts_file, "batch": None})  # fmt: skip
    if shard.quarantine is not None:
        refused = pq.read_table(folder / shard.quarantine.file, columns=["id"])["id"]
        bad = pc.fill_null(pc.is_in(refused, value_set=gone), False)
        if among := set(refused.filter(bad).to_pylist()):
            found |= among
            shard = shard.model_copy(update={"quarantine": drop_quarantined(folder, number, shard, pc.invert(bad))})
    return shard, found


def drop_quarantined(folder: Path, number: int, shard: Shard, keep: pa.ChunkedArray) -> DataFile | None:
    """Write a shard's quarantine anew with the rows to keep; None where none is left."""
    assert shard.quarantine is not None
    left = int(pc.sum(keep).as_py() or 0)
    if not left:
        return None
    part = folder / "quarantine.part"
    _copy(folder / shard.quarantine.file, part, QUARANTINE, keep.combine_chunks())
    return _name_file(part, f"quarantine-{number:05d}", left)


def _copy(source: Path, target: Path, schema: pa.Schema, keep: pa.Array) -> None:
    """Copy the rows to keep of a Parquet file, in bounded memory."""
    offset = 0
    with open_writer(target, schema) as writer:
        for rows in pq.ParquetFile(source, pre_buffer=False).iter_batches(batch_size=BATCH_ROWS):
            table = pa.Table.from_batches([rows])
            table = table.filter(keep[offset : offset + len(rows)])
            offset += len(rows)
            missing = [name for name in schema.names if name not in table.column_names]
            for name in missing:
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
            writer.write_table(table.select(schema.names).cast(schema))


def _recount(folder: Path, shards: Sequence[Shard]) -> list[Shard]:
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
    for shard in manifest.shards:
        yield shard.file
        yield from (beside.file for beside in (shard.facts, shard.quarantine) if beside is not None)


def to_draft(quarantined: pa.Table) -> pa.Table:
    """Turn quarantined rows back into a draft; what the batch got wrong in reading them still stands."""
    unread = [
        "; ".join(why for rule, why in zip(rules, reasons, strict=True) if rule == READING) or None
        for rules, reasons in zip(quarantined["rules"].to_pylist(), quarantined["reasons"].to_pylist(), strict=True)
    ]
    columns = {name: quarantined[name] for name in SCHEMA.names if name != "source"}
    for name in FILES:
        columns[name] = pc.struct_field(columns[name], "bytes")
    return pa.table({**columns, "where": quarantined["where"], "problem": pa.array(unread, pa.string())})
