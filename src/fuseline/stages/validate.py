"""Hold the data set against its contract; bad rows go to quarantine, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fuseline.config import Params, Validate
from fuseline.data.contract import FACTS, SCALARS, Report, check, describe
from fuseline.data.docs import write_docs
from fuseline.data.facts import read_facts, workers
from fuseline.data.shards import SCHEMA, iter_shard, live_rows, open_writer, read_manifest, read_shard
from fuseline.errors import DataError
from fuseline.progress import Progress, say
from fuseline.records import DataManifest, Validation
from fuseline.stages import entry

QUARANTINE = SCHEMA.append(pa.field("row", pa.int64())).append(pa.field("reasons", pa.string()))
"""The bad rows, with their number among the rows that stand, and why each is bad."""


def main(params: Params) -> None:
    """Write validation.json, quarantine.parquet and data_docs/ to build/validate, from data."""
    manifest = read_manifest(entry.DATA)
    refuse_other_task(manifest, params)
    if not manifest.shards:
        raise DataError("data/manifest.json: lists no shard; expected at least one")
    frame, parts = read_frame(manifest, params)
    if frame.empty:
        raise DataError("data/manifest.json: the data set has no rows")
    newest = int(pc.sum(parts[-1].live).as_py() or 0) if len(parts) > 1 else 0
    report = waive(check(frame, params.task, params.validate_, newest), parts)
    folder = entry.fresh(entry.VALIDATE)
    with open_writer(folder / "quarantine.parquet", QUARANTINE) as writer:
        for bad in quarantine(manifest, parts, report):
            writer.write_table(bad)
    write_docs(folder / "data_docs", report.results)
    validation = conclude(len(frame), manifest, report, params.validate_)
    validation.write(folder / "validation.json")
    say(f"validate: {validation.why}")


def refuse_other_task(manifest: DataManifest, params: Params) -> None:
    """Refuse a data set for another kind of task, or for other labels, than params.yaml names.

    Raises:
        DataError: they differ.
    """
    if manifest.task != params.task.kind:
        raise DataError(f"data/manifest.json holds examples for {manifest.task}; task.kind is {params.task.kind}")
    ours, theirs = set(params.task.labels), set(manifest.labels)
    if ours != theirs:
        sides = {"in data/manifest.json": theirs - ours, "in task.labels of params.yaml": ours - theirs}
        only = [f"only {where}: {', '.join(sorted(labels))}" for where, labels in sides.items() if labels]
        raise DataError(f"labels of data and params differ; {'; '.join(only)}")


@dataclass(frozen=True)
class Part:
    """One shard's share of the rows that stand."""

    start: int
    """Number of its first row among them."""
    live: pa.Array
    """Which of the shard's rows stand, bool [rows]."""
    waives: frozenset[str]

    @property
    def stop(self) -> int:
        """Number after its last row."""
        return self.start + int(pc.sum(self.live).as_py() or 0)


def read_frame(manifest: DataManifest, params: Params) -> tuple[pd.DataFrame, list[Part]]:
    """Read what the contract looks at, of all rows that stand, and where each shard's lie."""
    frames: list[pd.DataFrame] = []
    parts: list[Part] = []
    progress = Progress("validate", len(manifest.shards))
    ids = [read_shard(entry.DATA, shard, ["id"])["id"] for shard in manifest.shards]
    masks = live_rows(ids, [shard.supersedes for shard in manifest.shards])
    with workers() as pool:
        for done, (shard, mask) in enumerate(zip(manifest.shards, masks, strict=True), start=1):
            live = pa.repeat(True, shard.rows) if mask is None else mask.combine_chunks()
            seen = read_shard(entry.DATA, shard, SCALARS), read_facts(entry.DATA, shard, pool, FACTS)
            scalars, facts = seen if mask is None else (table.filter(live) for table in seen)
            frames.append(describe(scalars, facts, params.task))
            parts.append(Part(parts[-1].stop if parts else 0, live, frozenset(shard.waives)))
            progress.at(done)
    return pd.concat(frames, ignore_index=True), parts


def waive(report: Report, parts: list[Part]) -> Report:
    """Drop the reasons that rows were released from."""
    kept: dict[int, dict[str, str]] = {}
    for row, why in report.reasons.items():
        waives = next(part.waives for part in reversed(parts) if row >= part.start)
        if left := {key: reason for key, reason in why.items() if key not in waives}:
            kept[row] = left
    return Report(report.expectations, kept, report.results)


def quarantine(manifest: DataManifest, parts: list[Part], report: Report) -> Iterator[pa.Table]:
    """Yield the bad rows of each shard, with their number and reasons beside them."""
    for shard, part in zip(manifest.shards, parts, strict=True):
        number = part.start
        if not any(part.start <= row < part.stop for row in report.reasons):
            continue
        offset = 0
        for rows in iter_shard(entry.DATA, shard):
            live = rows.filter(part.live[offset : offset + rows.num_rows])
            offset += rows.num_rows
            bad = [row for row in range(number, number + live.num_rows) if row in report.reasons]
            if bad:
                taken = live.take(pa.array([row - number for row in bad], pa.int64()))
                reasons = ["; ".join(report.reasons[row].values()) for row in bad]
                taken = taken.append_column("row", pa.array(bad, pa.int64()))
                yield taken.append_column("reasons", pa.array(reasons, pa.string())).cast(QUARANTINE)
            number += live.num_rows


def conclude(rows: int, manifest: DataManifest, report: Report, rules: Validate) -> Validation:
    """Say whether the data set is fit to train on."""
    bad, broken = len(report.reasons), report.broken
    fits = bad <= rules.max_quarantined * rows
    first = ""
    if bad:
        row = min(report.reasons)
        first = f"; the first is row {row}: {'; '.join(report.reasons[row].values())}"
    why = f"{bad:,} of {rows:,} rows quarantined ({bad / rows:.1%}), at most {rules.max_quarantined:.1%} allowed{first}"
    if broken:
        why += f". The data set as a whole: {'; '.join(broken)}"
    return Validation(
        passed=fits and not broken,
        why=why,
        rows=rows,
        quarantined=bad,
        refused=sum(shard.quarantine.rows for shard in manifest.shards if shard.quarantine),
        expectations=report.expectations,
    )


if __name__ == "__main__":
    entry.run(main)
