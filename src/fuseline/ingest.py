"""New labelled examples, corrections and deletions: each makes the next version of the data set, or changes nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.config import Task, Validate
from fuseline.data import adapters, intake
from fuseline.data.contract import build_rules
from fuseline.data.fetch import clean_url, fetch
from fuseline.data.intake import Taken
from fuseline.data.shards import FILES, read_manifest
from fuseline.errors import DataError
from fuseline.lineage import data as versions
from fuseline.lineage.dvc import data_digest


@dataclass(frozen=True)
class Ingested:
    """What a command came to: the batch's fate and the data revisions before and after."""

    taken: Taken
    before: str
    after: str


def ingest(
    repo: Path, batch: str, task: Task, rules: Validate, *,
    form: str | None = None, columns: Mapping[str, str] | None = None, files: Path | None = None,
    names: str | None = None, new: str | None = None, dry_run: bool = False,
) -> Ingested:  # fmt: skip
    """Take a batch into the data set.

    Args:
        batch: a local path or any fsspec URL.
        form: the batch's format; None finds it out.
        columns: field of an example → the batch's name for it.
        files: folder that paths in rows start from; None: where the batch lies.
        names: pattern of the files' names, in a folder without metadata.
        new: begin a new data set of this name instead of adding to the present one.
        dry_run: only say what would happen.

    Raises:
        DataError: the batch cannot be read, or too many of its rows break the contract.
    """
    with tempfile.TemporaryDirectory(prefix="fuseline-batch-") as scratch, versions.locked(repo):
        drafts = adapters.read(fetch(batch, Path(scratch)), form, columns, task.kind, files, names)
        before = _revision(repo)
        if dry_run:
            folder = Path(scratch) / "data-set"
            _copy_present(repo, folder)
            return Ingested(_take_in(folder, drafts, batch, task, rules, new), before, before)
        taken: Taken | None = None
        try:
            with versions.next_version(repo) as folder:
                taken = _take_in(folder, drafts, batch, task, rules, new)
                if not taken.changes:
                    raise _UnchangedError
        except _UnchangedError:
            pass
        assert taken is not None
        return Ingested(taken, before, _revision(repo))


class _UnchangedError(Exception):
    """Leaves `next_version` without making one."""


def _take_in(folder: Path, drafts: Any, batch: str, task: Task, rules: Validate, new: str | None) -> Taken:
    if new is not None:
        for file in folder.iterdir():
            file.unlink()
        intake.begin(folder, new, task)
    elif not (folder / "manifest.json").exists():
        raise DataError("there is no data set to add to yet; begin one with --new NAME")
    return intake.take_in(folder, drafts, clean_url(batch), task, rules)


def _copy_present(repo: Path, folder: Path) -> None:
    folder.mkdir()
    if (repo / "data.dvc").exists():
        for file in versions.check_out(repo).iterdir():
            shutil.copy(file, folder) if file.name == "manifest.json" else (folder / file.name).symlink_to(file)


def _revision(repo: Path) -> str:
    return data_digest(repo) if (repo / "data.dvc").exists() else "none"


def forget(repo: Path, ids: Sequence[str]) -> tuple[int, str, str]:
    """Write the data set anew without some examples; return how many, and the revisions before and after.

    Raises:
        DataError: one of the ids is not there.
    """
    before = _revision(repo)
    with versions.locked(repo), versions.next_version(repo) as folder:
        count = intake.forget(folder, ids)
    return count, before, _revision(repo)


# --- quarantine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """The quarantined rows of one batch."""

    number: int
    source: str
    rows: pa.Table
    """Without the files' bytes, as `intake.QUARANTINE`."""

    @property
    def rules(self) -> Counter[str]:
        """How many rows broke each rule."""
        return Counter(rule for rules in self.rows["rules"].to_pylist() for rule in rules)


def read_quarantine(repo: Path) -> list[Refused]:
    """Return the quarantined rows, batch by batch."""
    folder = versions.check_out(repo)
    columns = [name for name in intake.QUARANTINE.names if name not in FILES]
    return [
        Refused(number, shard.source or shard.file, pq.read_table(folder / shard.quarantine.file, columns=columns))
        for number, shard in enumerate(read_manifest(folder).shards)
        if shard.quarantine is not None
    ]


def release(
    repo: Path, task: Task, rules: Validate, *, ids: Sequence[str] = (), batch: int | None = None,
    waive: Sequence[str] = (),
) -> Ingested:  # fmt: skip
    """Take quarantined rows in after all: those that pass the contract of today's params, or whose rules are waived.

    Args:
        ids: of the rows; none means all of `batch`.
        batch: number of the batch, as `quarantine list` shows it; None means any.
        waive: rules to release them from.

    Raises:
        DataError: no such row, a rule that cannot be waived, or a row that still breaks another rule.
    """
    soft = [rule.key for rule in build_rules(rules) if rule.soft]
    if hard := sorted(set(waive) - set(soft)):
        raise DataError(f"{', '.join(hard)}: cannot be waived; rules that can: {', '.join(soft)}")
    before = _revision(repo)
    with versions.locked(repo), versions.next_version(repo) as folder:
        chosen = _take_out(folder, ids, batch)
        all_told = rules.model_copy(update={"max_quarantined": 1.0})  # of what still breaks a rule is told below
        taken = intake.take_in(folder, [chosen], "released from quarantine", task, all_told, waive)
        if taken.quarantined:
            raise DataError(
                f"{taken.quarantined:,} of {taken.read:,} rows still break the contract; nothing was released. "
                f"The first: {taken.examples[0]}"
            )
        intake.drop_unlisted(folder)
    return Ingested(taken, before, _revision(repo))


def _take_out(folder: Path, ids: Sequence[str], batch: int | None) -> pa.Table:
    """Move rows out of the quarantine of a data set; return them as a draft."""
    manifest = read_manifest(folder)
    shards, taken = list(manifest.shards), []
    for number, shard in enumerate(shards):
        if shard.quarantine is None or batch not in (None, number):
            continue
        rows = pq.read_table(folder / shard.quarantine.file)
        named = pc.is_in(rows["id"], value_set=pa.array(ids, pa.string()))
        wanted = named if ids else pa.chunked_array([pa.repeat(True, rows.num_rows)])
        if not pc.any(wanted).as_py():
            continue
        taken.append(rows.filter(wanted))
        kept = intake.drop_quarantined(folder, number, shard, pc.invert(wanted))
        shards[number] = shard.model_copy(update={"quarantine": kept})
    if not taken:
        raise DataError("no quarantined row was named; `fuseline quarantine list` shows what there is")
    manifest.model_copy(update={"shards": shards}).write(folder / "manifest.json")
    return intake.to_draft(pa.concat_tables(taken))
