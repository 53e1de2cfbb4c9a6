"""Deletion on request: a data set without some examples, that knows them again by digests alone.

A batch that brings them back, an old one or another, is taken in without them. What is kept is a digest of each id and
of what the row showed: who has the id or the content can tell that it was forgotten, nobody can tell what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fuseline.data import facts as fact
from fuseline.data.rewrite import TOLD, complete, drop_unlisted, keep_accepted, keep_quarantined, name_file, recount
from fuseline.data.shards import WIDE, check_file, iter_file, open_writer, read_manifest, read_shard
from fuseline.errors import DataError
from fuseline.records import DataFile, DataManifest, Shard

DIGEST = pa.binary(16)
SEEN = pa.schema([("id", pa.string()), ("shown", DIGEST)])


@dataclass(frozen=True)
class Erased:
    """What a deletion came to."""

    examples: int
    copies: list[str]
    """Ids of examples that were not named, and show what a deleted one showed."""


def forget(folder: Path, ids: Sequence[str]) -> Erased:
    """Write the data set anew without some examples, in all their versions, quarantined ones too.

    Quarantined rows that show the same go with them, whatever their ids. Accepted ones stay, and are named.

    Raises:
        DataError: one of the ids is not there.
    """
    manifest = read_manifest(folder)
    named = pa.array(sorted(set(ids)), pa.string())
    accepted = [_accepted(folder, shard) for shard in manifest.shards]
    refused = [_refused(folder, shard) for shard in manifest.shards]
    every = pa.concat_tables([*accepted, *refused, SEEN.empty_table()])
    gone = every.filter(pc.is_in(every["id"], value_set=named))
    if unknown := sorted(set(ids) - set(gone["id"].to_pylist())):
        raise DataError(f"no example has the id {', '.join(unknown[:5])}; nothing was deleted")
    shown = gone["shown"].combine_chunks().drop_null()
    shards, copies = [], set[str]()
    for number, shard in enumerate(manifest.shards):
        hit = pc.is_in(accepted[number]["id"], value_set=named)
        same = pc.is_in(accepted[number]["shown"], value_set=shown)
        copies |= set(accepted[number]["id"].filter(pc.and_not(same, hit)).to_pylist())
        bad = pc.or_(
            pc.is_in(refused[number]["id"], value_set=named), pc.is_in(refused[number]["shown"], value_set=shown)
        )
        if pc.any(hit).as_py():
            shard = keep_accepted(folder, number, shard, pc.invert(hit))
        if pc.any(bad).as_py():
            shard = keep_quarantined(folder, number, shard, pc.invert(bad))
        shards.append(shard)
    counted = recount(folder, shards)
    known = pa.concat_arrays([read(folder, manifest), _of_ids(named.to_pylist()), shown]).unique()
    manifest.model_copy(update={
        "shards": counted, "rows": sum(shard.rows - shard.supersedes for shard in counted),
        "forgotten": manifest.forgotten + len(named), "forgotten_digests": _write(folder, known),
    }).write(folder / "manifest.json")  # fmt: skip
    drop_unlisted(folder)
    return Erased(len(named), sorted(copies))


def _accepted(folder: Path, shard: Shard) -> pa.Table:
    """Return the ids of a shard's rows, and digests of what they show."""
    ids = read_shard(folder, shard, ["id"])["id"]
    return pa.table(
        [ids, pa.array(fact.shown(fact.read_facts(folder, shard, columns=fact.SHOWN)), DIGEST)], schema=SEEN
    )


def _refused(folder: Path, shard: Shard) -> pa.Table:
    """Return the same of the rows in its quarantine, whose facts were not kept."""
    if shard.quarantine is None:
        return SEEN.empty_table()
    parts = [SEEN.empty_table()]
    for rows in iter_file(pq.ParquetFile(check_file(folder, shard.quarantine, TOLD), pre_buffer=False)):
        table = pa.Table.from_batches([rows])
        shown = fact.shown(fact.find_facts(complete(table, WIDE)))
        parts.append(pa.table([table["id"], pa.array(shown, DIGEST)], schema=SEEN))
    return pa.concat_tables(parts)


# --- what is known of them ----------------------------------------------------------------------------------------


def read(folder: Path, manifest: DataManifest) -> pa.Array:
    """Return the digests that a data set keeps of what was forgotten.

    Raises:
        DataError: their file is missing or altered.
    """
    if manifest.forgotten_digests is None:
        return pa.array([], DIGEST)
    return (
        pq.read_table(check_file(folder, manifest.forgotten_digests, ["digest"]))["digest"]
        .combine_chunks()
        .cast(DIGEST)
    )


def among(forgotten: pa.Array, ids: Sequence[str], facts: pa.Table) -> NDArray[np.bool_]:
    """Say which rows were forgotten, by their id or by what they show."""
    if not len(forgotten):
        return np.zeros(len(ids), bool)
    found = pc.or_(*(pc.is_in(digests, value_set=forgotten) for digests in (_of_ids(ids), _of_shown(facts))))
    return found.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def lift(folder: Path, manifest: DataManifest, ids: Sequence[str], facts: pa.Table) -> DataManifest:
    """Return the manifest of a data set that takes some rows in again, and knows nothing of them as forgotten."""
    forgotten = read(folder, manifest)
    back = pc.is_in(forgotten, value_set=pa.concat_arrays([_of_ids(ids), _of_shown(facts).drop_null()]))
    return manifest.model_copy(update={"forgotten_digests": _write(folder, forgotten.filter(pc.invert(back)))})


def _of_ids(ids: Sequence[str]) -> pa.Array:
    return pa.array([hashlib.blake2b(f"id {one}".encode(), digest_size=16).digest() for one in ids], DIGEST)


def _of_shown(facts: pa.Table) -> pa.Array:
    return pa.array(fact.shown(facts), DIGEST)


def _write(folder: Path, digests: pa.Array) -> DataFile | None:
    """Write digests in an order that tells nothing of when each came."""
    if not len(digests):
        return None
    part = folder / "forgotten.part"
    with open_writer(part, pa.schema([("digest", DIGEST)])) as writer:
        writer.write_table(pa.table({"digest": pa.array(sorted(digests.to_pylist()), DIGEST)}))
    return name_file(part, "forgotten", len(digests))
