"""Take a batch in: what becomes a shard, what goes to quarantine, what was there already.

A pure function of files: it writes the next version of a data set into a folder that holds the present one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fuseline.config import Task, Validate
from fuseline.data import facts as fact
from fuseline.data import forgetting
from fuseline.data.contract import SCALARS, check_rows, describe
from fuseline.data.rewrite import QUARANTINE, drop_unlisted, name_file, write_facts
from fuseline.data.shards import (
    FILES,
    SCHEMA,
    WIDE,
    iter_file,
    name_shard,
    open_writer,
    read_manifest,
    read_shard,
    schema_with,
)  # fmt: skip
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE
from fuseline.records import DataManifest, Shard

Bools = NDArray[np.bool_]
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
    forgotten: int = 0
    """Rows left out because they, or what they show, were deleted on request."""
    known_as: str | None = None
    """The shard that the very same batch became before."""
    corrected: int = 0
    """Rows of such a batch in whose place newer batches put others since."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How often each reason was given."""
    targets: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """The first quarantined rows, in words."""
    strange: Counter[str] = field(default_factory=Counter)
    """Targets that were refused."""

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
    unnamed: list[bool]
    """Which rows came without an id."""

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
    folder: Path, drafts: Iterable[pa.Table], source: str, task: Task, rules: Validate, waives: Sequence[str] = (),
    allow_forgotten: bool = False, known: bool = True,
) -> Taken:  # fmt: skip
    """Add a batch to the data set in `folder`.

    Args:
        drafts: the batch's rows, as `drafts.DRAFT`; a column `source` may name each row's own.
        source: where the batch came from, for people.
        waives: rules that its rows are released from.
        allow_forgotten: take in what was deleted on request too, and keep its digests no longer.
        known: a batch that was taken in before changes nothing, whatever was corrected or forgotten since; allowed to,
            it brings back what was forgotten, and only that.

    Raises:
        DataError: it has no rows, too many would be quarantined, or the data set is of another task.
    """
    manifest = read_manifest(folder)
    refuse_other_task(manifest, task)
    part = folder / "batch.part"
    try:
        batch = _read(part, drafts, source, task)
        _refuse_empty(batch)
        same = next((n for n, s in enumerate(manifest.shards) if s.batch == batch.digest), None) if known else None
        held = held_rows(folder, manifest, batch.frame["id"])
        gone = _forgotten(folder, manifest, batch) & ~batch.frame["id"].isin(held.index).to_numpy()
        if same is not None and not (allow_forgotten and gone.any()):
            return _recognise(batch, manifest.shards[same].file, held[held["shard"] > same], gone)
        reasons = _judge(batch, rules, waives)
        fate = _decide(held, batch, reasons, gone & (not allow_forgotten))
        if same is not None:
            _leave_but(gone, fate, reasons)
        taken = _count(batch, reasons, fate, task.kind)
        _refuse_too_many(taken, rules.max_quarantined, task)
        if taken.changes:
            shard = _write(folder, len(manifest.shards), batch, reasons, fate)
            entry = shard.model_copy(update={
                "supersedes": taken.superseded, "waives": sorted(waives), "batch": batch.digest, "source": source,
            })  # fmt: skip
            if allow_forgotten:
                manifest = forgetting.lift(folder, manifest, batch.frame["id"].tolist(), batch.facts)
            _add(folder, manifest, entry, task, taken)
            drop_unlisted(folder)
        return taken
    finally:
        part.unlink(missing_ok=True)


def _refuse_empty(batch: Batch) -> None:
    """Refuse a batch without rows: an export that broke off would pass for a quiet day, in silence, each day."""
    if batch.frame.empty:
        raise DataError(
            "the batch holds no rows, nothing was taken in; expected one at least: look whether its export broke off, "
            "and send no batch where there is nothing new"
        )


def _recognise(batch: Batch, file: str, newer: pd.DataFrame, gone: Bools) -> Taken:
    """Say what became of a batch that is known.

    Args:
        newer: as `held_rows`, of the shards after the batch's own.
    """
    rows = pd.DataFrame({"id": batch.frame["id"], "digest": batch.facts["digest"].to_pylist()})
    now = rows["id"].map(newer["digest"])
    corrected = rows["id"][now.notna() & (now != rows["digest"])].nunique()
    return Taken(len(rows), 0, len(rows), 0, 0, forgotten=int(gone.sum()), known_as=file, corrected=corrected)


def _leave_but(rows: Bools, fate: NDArray[np.int8], reasons: dict[int, dict[str, str]]) -> None:
    """Let all rows but some be as they are: what was corrected since stays so, what was refused is refused once."""
    fate[~rows] = KNOWN
    for row in [row for row in reasons if not rows[row]]:
        del reasons[row]


def _forgotten(folder: Path, manifest: DataManifest, batch: Batch) -> Bools:
    return forgetting.among(forgetting.read(folder, manifest), batch.frame["id"].tolist(), batch.facts)


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
    frames, facts, problems, where, unnamed = [], [], [], [], []
    seen: Counter[bytes] = Counter()
    with open_writer(part, WIDE, compression="none") as writer, fact.workers() as pool:
        for draft in drafts:
            rows = _to_examples(draft, source)
            found = fact.find_facts(rows, pool)
            unnamed += rows["id"].is_null().to_pylist()
            rows = _name_rows(rows, found, seen)
            frames.append(describe(rows.select(SCALARS), found, task))
            facts.append(found)
            problems += draft["problem"].to_pylist()
            where += draft["where"].to_pylist()
            writer.write_table(rows)
    empty = WIDE.empty_table()
    frames = frames or [describe(empty.select(SCALARS), fact.SCHEMA.empty_table(), task)]
    return Batch(part, pd.concat(frames, ignore_index=True), pa.concat_tables(facts or [fact.SCHEMA.empty_table()]),
                 problems, where, unnamed)  # fmt: skip


def _to_examples(draft: pa.Table, source: str) -> pa.Table:
    columns = {
        name: _as_files(draft[name]) if name in FILES else draft[name].cast(pa.string())
        for name in SCHEMA.names
        if name != "source"
    }
    columns[BOXES] = draft[BOXES] if BOXES in draft.column_names else pa.nulls(len(draft), pa.string())
    columns["source"] = pa.repeat(pa.scalar(source, pa.string()), draft.num_rows)
    if "source" in draft.column_names:  # it came before, from somewhere else
        columns["source"] = pc.coalesce(draft["source"], columns["source"])
    columns[MORE] = (
        _as_lists(draft[MORE]) if MORE in draft.column_names else pa.nulls(len(draft), WIDE.field(MORE).type)
    )
    return pa.table([columns[name] for name in WIDE.names], schema=WIDE)


def _as_lists(column: pa.ChunkedArray) -> pa.Array:
    """Turn lists of bytes into lists of files; an empty one into null."""
    lists = column.combine_chunks()
    lists = pc.if_else(pc.equal(pc.list_value_length(lists), 0), None, lists)
    files = _as_files(pa.chunked_array([lists.flatten()], pa.binary()), missing=False)
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), files, mask=lists.is_null())


def _as_files(column: pa.ChunkedArray, missing: bool = True) -> pa.Array:
    """Turn bytes into files.

    Args:
        missing: null stands for no file; else for one whose bytes are missing.
    """
    data = column.combine_chunks().cast(pa.binary())
    paths = pa.nulls(len(data), pa.string())
    return pa.StructArray.from_arrays([data, paths], ["bytes", "path"], mask=data.is_null() if missing else None)


def _name_rows(rows: pa.Table, facts: pa.Table, seen: Counter[bytes]) -> pa.Table:
    """Give rows without an id one that is made of their content, and those without a group their id.

    What a batch holds twice is kept twice, the second time under its number: a corpus repeats itself, and the same
    batch again still gives the same ids.

    Args:
        seen: how often the batch had each content further up; counted on.
    """
    if not rows["id"].null_count:
        ids = rows["id"]
    else:
        ids = pa.array([
            _made_id(digest, seen) if name is None else name
            for name, digest in zip(rows["id"].to_pylist(), facts["digest"].to_pylist(), strict=True)
        ], pa.string())  # fmt: skip
    rows = rows.set_column(0, SCHEMA.field("id"), ids)
    return rows.set_column(1, SCHEMA.field("group"), pc.if_else(rows["group"].is_valid(), rows["group"], ids))


def _made_id(digest: bytes, seen: Counter[bytes]) -> str:
    seen[digest] += 1
    return digest.hex() if seen[digest] == 1 else f"{digest.hex()}-{seen[digest]}"


def _judge(batch: Batch, rules: Validate, waives: Sequence[str]) -> dict[int, dict[str, str]]:
    """Return each bad row's reasons by rule."""
    reasons = {row: {READING: problem} for row, problem in enumerate(batch.problems) if problem is not None}
    for row, why in check_rows(batch.frame, rules).reasons.items():
        left = {key: reason for key, reason in why.items() if key not in waives and key != "id_unique"}
        if left:
            reasons[row] = reasons.get(row, {}) | left
    return reasons


NEW, NEWER, KNOWN, BAD, GONE = range(5)
"""A row's fate: accepted; accepted in place of an older one; held already; quarantined; forgotten, as it was asked."""


def _decide(held: pd.DataFrame, batch: Batch, reasons: dict[int, dict[str, str]], gone: Bools) -> NDArray[np.int8]:
    """Say what becomes of each row; two rows of one id that say different things are both quarantined.

    A row that names no id corrects none: where its made id stands with other content, it was corrected since.

    Args:
        held: as `held_rows` gives it.
        gone: rows that were forgotten, and stay so.
    """
    rows = pd.DataFrame({"id": batch.frame["id"], "digest": batch.facts["digest"].to_pylist()})
    before = rows["id"].map(held["digest"]) if len(held) else pd.Series(None, rows.index, dtype=object)
    same = (before == rows["digest"]).to_numpy()
    fate = np.full(len(rows), NEW, np.int8)
    fate[list(reasons)] = BAD
    fate[gone] = GONE
    fate[same & np.array([problem is None for problem in batch.problems], bool)] = KNOWN  # released, it may be
    for row in reasons.keys() & set(np.flatnonzero(fate != BAD).tolist()):
        del reasons[row]
    good = rows[fate == NEW]
    repeated = good.index[good.duplicated()]
    fate[repeated] = KNOWN
    good = good.drop(repeated)
    for row in good.index[good.duplicated("id", keep=False)]:
        reasons[int(row)] = {
            "id_unique": f"id {rows['id'][row]!r} stands in this batch again, with other content; send it once, as it "
            "should be"
        }
        fate[row] = BAD
    fate[(fate == NEW) & before.notna().to_numpy()] = NEWER
    fate[(fate == NEWER) & np.array(batch.unnamed, bool)] = KNOWN
    return fate


def held_rows(folder: Path, manifest: DataManifest, ids: Iterable[str]) -> pd.DataFrame:
    """Return `digest`, and the number of its `shard`, of each example that stands and has one of these ids, by id."""
    wanted = pa.array(ids, pa.string())
    parts = [pd.DataFrame({"digest": [], "shard": []}, dtype=object)]
    for number, shard in enumerate(manifest.shards):
        column = read_shard(folder, shard, ["id"])["id"]
        there = pc.is_in(column, value_set=wanted)
        digests = fact.read_facts(folder, shard, columns=["digest"])["digest"].filter(there)
        found = {"digest": digests.to_pylist(), "shard": number}
        parts.append(pd.DataFrame(found, column.filter(there).to_pylist(), dtype=object))
    whole = pd.concat(parts)
    return whole[~whole.index.duplicated(keep="last")]


def _count(batch: Batch, reasons: Mapping[int, Mapping[str, str]], fate: np.ndarray, kind: str) -> Taken:
    counts = np.bincount(fate, minlength=5)
    accepted = batch.frame["target"][(fate == NEW) | (fate == NEWER)]
    examples = [
        f"{batch.where[row] or f'row {row}'}: {'; '.join(dict.fromkeys(reasons[row].values()))}"
        for row in sorted(reasons)[:5]
    ]
    return Taken(
        read=len(fate), accepted=int(counts[NEW] + counts[NEWER]), unchanged=int(counts[KNOWN]),
        superseded=int(counts[NEWER]), quarantined=int(counts[BAD]), forgotten=int(counts[GONE]),
        reasons=Counter(_kind(rule, reason) for why in reasons.values() for rule, reason in why.items()),
        targets=_tally(accepted.tolist(), kind), examples=examples,
        strange=Counter(batch.frame["target"][sorted(row for row in reasons if "target" in reasons[row])].dropna()),
    )  # fmt: skip


def _tally(targets: Iterable[str], kind: str) -> Counter[str]:
    """Count labels, or those of spans; answers and texts are as many as rows."""
    if kind == "ner":
        return Counter(label for target in targets for _, _, label in json.loads(target))
    if kind == "multilabel":
        return Counter(label for target in targets for label in json.loads(target))
    return Counter(targets) if kind == "classification" else Counter()


def _kind(rule: str, reason: str) -> str:
    """Cut a reason down to what rows have in common: what it quotes and counts differs from one to the next."""
    common = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|(?<!UTF-)\d[\d,.]*", "…", reason.partition(";")[0])
    return f"{rule}: {common[:100]}"


def _refuse_too_many(taken: Taken, allowed: float, task: Task) -> None:
    if taken.read and taken.quarantined / taken.read > allowed:  # a quotient is rounded as params.yaml's number is
        first = "\n  ".join(taken.examples)
        if task.kind != "classification" and taken.strange:
            first += f"\ntask.kind of params.yaml is {task.kind}: is that the problem that this batch is for?"
        elif taken.strange:
            names = [repr(name[:40]) for name, _ in taken.strange.most_common(30)]
            first += f"\nLabels that task.labels of params.yaml lacks, the commonest first: {', '.join(names)}"
            first += f" and {len(taken.strange) - 30:,} more" if len(taken.strange) > 30 else ""
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
    needed = {MORE: batch.facts[fact.PICTURES].is_valid().to_numpy(), BOXES: batch.frame["placed"].to_numpy()}
    schema = schema_with([name for name, rows in needed.items() if rows[keep].any()])
    offset = 0
    with open_writer(shard_part, schema) as accepted, open_writer(bad_part, QUARANTINE) as refused:
        for rows in iter_file(pq.ParquetFile(batch.file, pre_buffer=False)):
            table = pa.Table.from_batches([rows])
            here = slice(offset, offset + len(rows))
            offset += len(rows)
            accepted.write_table(table.filter(pa.array(keep[here])).select(schema.names).cast(schema))
            if bad[here].any():
                numbers = np.flatnonzero(bad[here])
                refused.write_table(_explain(table.take(pa.array(numbers)), numbers + here.start, batch.where, reasons))
    shard = name_shard(shard_part, number, int(keep.sum()))
    facts = write_facts(folder, number, batch.facts.filter(pa.array(keep)))
    if not bad.any():
        bad_part.unlink()
        return shard.model_copy(update={"facts": facts})
    refused_file = name_file(bad_part, f"quarantine-{number:05d}", int(bad.sum()))
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


def _add(folder: Path, manifest: DataManifest, shard: Shard, task: Task, taken: Taken) -> None:
    manifest.model_copy(update={
        "labels": task.labels, "shards": [*manifest.shards, shard],
        "rows": manifest.rows + taken.accepted - taken.superseded,
    }).write(folder / "manifest.json")  # fmt: skip
