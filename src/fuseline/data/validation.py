"""Hold a whole data set against its contract: the rows that stand, and where each shard's lie among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fuseline.config import Task, Validate
from fuseline.data.contract import FACTS, SCALARS, Report, check, describe
from fuseline.data.facts import read_facts, workers
from fuseline.data.shards import live_rows, read_shard
from fuseline.errors import DataError
from fuseline.progress import Progress
from fuseline.records import DataManifest, Validation


def refuse_other_task(manifest: DataManifest, task: Task) -> None:
    """Refuse a data set for another kind of task, or for other labels, than params.yaml names.

    Raises:
        DataError: they differ.
    """
    if manifest.task != task.kind:
        raise DataError(f"data/manifest.json holds examples for {manifest.task}; task.kind is {task.kind}")
    ours, theirs = set(task.labels), set(manifest.labels)
    if ours != theirs:
        sides = {"in data/manifest.json": theirs - ours, "in task.labels of params.yaml": ours - theirs}
        only = [f"only {where}: {', '.join(sorted(labels))}" for where, labels in sides.items() if labels]
        raise DataError(f"labels of data and params differ; {'; '.join(only)}")


def hold(folder: Path, manifest: DataManifest, task: Task, rules: Validate) -> tuple[list[Part], Report, Validation]:
    """Check all rows that stand, and the data set as a whole.

    Raises:
        DataError: it is for another task, or has no rows.
    """
    refuse_other_task(manifest, task)
    if not manifest.shards:
        raise DataError("data/manifest.json: lists no shard; expected at least one")
    frame, parts = read_frame(folder, manifest, task)
    if frame.empty:
        raise DataError("data/manifest.json: the data set has no rows")
    report = waive(check(frame, task, rules, [part.start for part in parts[1:]]), parts)
    return parts, report, conclude(len(frame), manifest, report, rules)


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


def read_frame(folder: Path, manifest: DataManifest, task: Task) -> tuple[pd.DataFrame, list[Part]]:
    """Read what the contract looks at, of all rows that stand, and where each shard's lie."""
    frames: list[pd.DataFrame] = []
    parts: list[Part] = []
    progress = Progress("validate", len(manifest.shards))
    ids = [read_shard(folder, shard, ["id"])["id"] for shard in manifest.shards]
    masks = live_rows(ids, [shard.supersedes for shard in manifest.shards])
    with workers() as pool:
        for done, (shard, mask) in enumerate(zip(manifest.shards, masks, strict=True), start=1):
            live = pa.repeat(True, shard.rows) if mask is None else mask.combine_chunks()
            seen = read_shard(folder, shard, SCALARS), read_facts(folder, shard, pool, FACTS)
            scalars, facts = seen if mask is None else (table.filter(live) for table in seen)
            frames.append(describe(scalars, facts, task))
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


def conclude(rows: int, manifest: DataManifest, report: Report, rules: Validate) -> Validation:
    """Say whether the data set is fit to train on."""
    bad, broken = len(report.reasons), report.broken
    fits = bad / rows <= rules.max_quarantined  # a quotient is rounded as params.yaml's number is
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
