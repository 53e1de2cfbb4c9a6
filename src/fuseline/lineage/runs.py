"""What happened to each run: one JSON record beside its evidence."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from fuseline.errors import FuselineError
from fuseline.lineage import registry
from fuseline.lineage.git import git, inputs_key
from fuseline.lineage.process import lives
from fuseline.lineage.workspace import STATE
from fuseline.records import Record

INPUTS = ("data.dvc", "dvc.yaml", "params.yaml", "requirements.lock", "src")
"""What decides a run's outcome, together with the champion it is judged against."""


class Run(Record):
    """`run.json`."""

    run: str
    started: str
    """ISO 8601, UTC."""
    seconds: float
    outcome: Literal["published", "refused", "failed", "running"]
    why: str
    version: str | None
    """The version it published."""
    champion: str | None
    """The champion after it."""
    data: str
    inputs: str
    by_machine_alone: bool = False
    """Whether every rule that refused it counts what a machine measured: another one, or another hour, may bless it."""
    pid: int | None = None
    """Process that ran it."""

    @property
    def state(self) -> str:
        """How it ended, as far as can be told: a record of a run at work whose process is gone was killed."""
        at_work = self.pid is not None and lives(self.pid)
        return "killed" if self.outcome == "running" and not at_work else self.outcome


def write_run(repo: Path, run: Run) -> None:
    """Keep a run's record."""
    run.write(repo / STATE / "runs" / run.run / "run.json")


def read_runs(repo: Path) -> list[Run]:
    """Return all runs that can be read, latest first."""
    runs = []
    for path in sorted((repo / STATE / "runs").glob("*/run.json"), reverse=True):
        with contextlib.suppress(FuselineError):  # a record of another version tells nothing, and harms nothing
            runs.append(Run.read(path))
    return runs


def read_published(repo: Path, name: str) -> list[Run]:
    """Return the runs behind the registered versions, latest first, as their commits tell: other clones' too."""
    runs = []
    for version in reversed(registry.versions(repo, name)):
        told = _trailers(repo, f"{name}@{version}")
        if told.keys() >= {"Run", "Data", "Inputs"}:
            runs.append(Run(
                run=told["Run"], started=git(repo, "log", "-1", "--format=%cI", f"{name}@{version}"), seconds=0.0,
                outcome="published", why="", version=version, champion=version, data=told["Data"],
                inputs=told["Inputs"],
            ))  # fmt: skip
    return runs


def _trailers(repo: Path, revision: str) -> dict[str, str]:
    lines = git(repo, "log", "-1", "--format=%(trailers:unfold,only)", revision).splitlines()
    return {key: value for key, _, value in (line.partition(": ") for line in lines)}


def already_judged(repo: Path, commit: str, name: str, champion: str | None) -> Run | None:
    """Return the run that judged these very inputs, if judging them again could change nothing.

    That is so where they were published, here or by somebody whose tags are known here: after a rollback the next
    scheduled run must not bring the rolled-back model back under a new version. The tags tell it, not this clone's
    records: a version whose tags were deleted is published no more. And it is so where they were refused under the
    champion that still stands.
    """
    key = inputs_key(repo, commit, INPUTS)
    refused = [run for run in read_runs(repo) if run.outcome == "refused" and run.champion == champion]
    settled = [run for run in refused if not run.by_machine_alone]
    return next((run for run in [*read_published(repo, name), *settled] if run.inputs == key), None)
