"""A run's own clone: nobody's working tree is touched, and two runs cannot collide."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from fuseline.lineage.dvc import dvc, share_cache
from fuseline.lineage.git import git

STATE = ".fuseline"
"""Folder at the repository's root for everything that runs leave behind; git-ignored."""


KEEP_S = 24 * 3600
"""How long the clone of a failed run is kept for a look."""


@dataclass(frozen=True)
class Workspace:
    """One run: where it came from, the commit it runs on, and its clone."""

    repo: Path
    run: str
    commit: str
    upstream: str | None = None
    """URL of the git remote that results go to as well."""

    @property
    def targets(self) -> list[str]:
        """Remotes of the clone that results are pushed to: the shared one first, for it decides races."""
        return ["upstream", "origin"] if self.upstream else ["origin"]

    @property
    def clone(self) -> Path:
        """The run's clone."""
        return self.repo / STATE / "work" / self.run

    @property
    def branch(self) -> str:
        """The branch that the run's results are committed on."""
        return f"retrain/{self.run}"

    @property
    def evidence(self) -> Path:
        """Folder of the run's verdict and report, kept after the clone is gone."""
        return self.repo / STATE / "runs" / self.run


def open_workspace(workspace: Workspace) -> None:
    """Clone the repository at the snapshot and fetch the data set."""
    ref = f"refs/fuseline/{workspace.run}"
    git(workspace.repo, "update-ref", ref, workspace.commit)
    workspace.clone.parent.mkdir(parents=True, exist_ok=True)
    git(workspace.repo, "clone", "--quiet", "--no-checkout", str(workspace.repo), str(workspace.clone))
    git(workspace.clone, "fetch", "--quiet", "--no-tags", "origin", f"{ref}:refs/heads/{workspace.branch}")
    git(workspace.clone, "checkout", "--quiet", workspace.branch)
    git(workspace.repo, "update-ref", "-d", ref)
    if workspace.upstream:
        git(workspace.clone, "remote", "add", "upstream", workspace.upstream)
    share_cache(workspace.repo, workspace.clone)
    dvc(workspace.clone, "pull", "data.dvc")


def sweep(repo: Path) -> None:
    """Remove what failed runs left more than a day ago; younger things may be another run's, at work."""
    for folder in ("work", "incoming"):
        for old in (repo / STATE / folder).glob("*"):
            if time.time() - old.stat().st_mtime > KEEP_S:
                shutil.rmtree(old, ignore_errors=True)


def keep_validation(workspace: Workspace) -> None:
    """Keep what the data contract found, and the rows that it set aside, when the clone is gone."""
    found = workspace.clone / "build" / "validate"
    if found.is_dir():
        shutil.copytree(found, workspace.evidence, dirs_exist_ok=True)


def close_workspace(workspace: Workspace) -> None:
    """Remove the clone; what it made is in the cache, the remote and the branch."""
    shutil.rmtree(workspace.clone, ignore_errors=True)
