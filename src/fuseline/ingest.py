"""New labelled examples, corrections and deletions: each makes the next version of the data set, or changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.config import Prepare, Task, Validate
from fuseline.data import adapters, forgetting, intake, quarantine
from fuseline.data.dealing import keeping_splits
from fuseline.data.fetch import fetch
from fuseline.data.forgetting import Erased
from fuseline.data.intake import Taken
from fuseline.data.quarantine import Refused
from fuseline.data.urls import clean_url
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
    names: str | None = None, new: str | None = None, dry_run: bool = False, allow_forgotten: bool = False,
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
        allow_forgotten: take in what was deleted on request, too.

    Raises:
        DataError: the batch cannot be read, or too many of its rows break the contract.
    """
    with versions.locked(repo), versions.scratch(repo) as scratch:
        drafts = adapters.read(fetch(batch, scratch), form, columns, task.kind, files, names)
        before = _revision(repo)
        if dry_run:
            folder = scratch / "data-set"
            _copy_present(repo, folder)
            with versions.speaking_of_data(repo, folder):
                taken = _take_in(folder, drafts, batch, task, rules, new, allow_forgotten)
            return Ingested(taken, before, before)
        try:
            with versions.next_version(repo) as folder:
                taken = _take_in(folder, drafts, batch, task, rules, new, allow_forgotten)
                if not taken.changes:
                    raise _UnchangedError
        except _UnchangedError:
            pass
        return Ingested(taken, before, _revision(repo))


class _UnchangedError(Exception):
    """Leaves `next_version` without making one."""


def _take_in(
    folder: Path, drafts: Any, batch: str, task: Task, rules: Validate, new: str | None, allow_forgotten: bool
) -> Taken:
    if new is not None:
        for file in folder.iterdir():
            file.unlink()
        intake.begin(folder, new, task)
    elif not (folder / "manifest.json").exists():
        raise DataError("there is no data set to add to yet; begin one with --new NAME")
    return intake.take_in(folder, drafts, clean_url(batch), task, rules, allow_forgotten=allow_forgotten)


def _copy_present(repo: Path, folder: Path) -> None:
    folder.mkdir()
    if (repo / "data.dvc").exists():
        for file in versions.check_out(repo).iterdir():
            shutil.copy(file, folder) if file.name == "manifest.json" else (folder / file.name).symlink_to(file)


def _revision(repo: Path) -> str:
    return data_digest(repo) if (repo / "data.dvc").exists() else "none"


def forget(repo: Path, ids: Sequence[str], settings: Prepare) -> tuple[Erased, str, str]:
    """Write the data set anew without some examples; return what that came to, and the revisions before and after.

    Args:
        settings: what the splits are dealt by, so that no other example leaves its own.

    Raises:
        DataError: one of the ids is not there.
    """
    before = _revision(repo)
    with versions.locked(repo), versions.next_version(repo) as folder, keeping_splits(folder, settings):
        erased = forgetting.forget(folder, ids)
    return erased, before, _revision(repo)


def read_quarantine(repo: Path) -> list[Refused]:
    """Return the quarantined rows, batch by batch."""
    with versions.snapshot(repo) as (_, folder):
        return quarantine.read_refused(folder)


def release(
    repo: Path, task: Task, rules: Validate, *, ids: Sequence[str] = (), batch: int | None = None,
    waive: Sequence[str] = (),
) -> Ingested:  # fmt: skip
    """Take quarantined rows in after all, as `quarantine.release` does."""
    before = _revision(repo)
    with versions.locked(repo), versions.next_version(repo) as folder:
        taken = quarantine.release(folder, task, rules, ids, batch, waive)
    return Ingested(taken, before, _revision(repo))
