"""The git commands that a run needs. Works without a configured identity, and never in the user's index."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fuseline.errors import LineageError
from fuseline.lineage.process import run

NAME, EMAIL = "Fuseline", "fuseline@localhost"


def git(repo: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run git in `repo` and return its stripped output."""
    return run(["git", *arguments], repo, {**identity(repo), **(env or {})}).strip()


def identity(repo: Path) -> dict[str, str]:
    """Return the user's identity where git has one, else Fuseline's, for author and committer."""
    try:
        name = run(["git", "config", "user.name"], repo).strip()
        email = run(["git", "config", "user.email"], repo).strip()
    except LineageError:
        name, email = NAME, EMAIL
    return {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", name), ("EMAIL", email))
    }


def root(folder: Path) -> Path:
    """Return the root of the repository that `folder` lies in.

    Raises:
        LineageError: it lies in none.
    """
    try:
        return Path(run(["git", "rev-parse", "--show-toplevel"], folder).strip())
    except (LineageError, FileNotFoundError) as error:
        raise LineageError(
            f"{folder}: not inside a git repository that can be used; Fuseline versions models with git. ({error})"
        ) from error


def take_snapshot(repo: Path) -> str:
    """Return a commit of exactly the tree as it stands, untracked files included; HEAD itself when clean.

    Of ignored files it holds those that git tracks, also where they were only just added by force. Index, branch and
    working tree stay as they are.

    Raises:
        LineageError: there is no commit yet.
    """
    try:
        head = git(repo, "rev-parse", "--verify", "HEAD")
    except LineageError as error:
        raise LineageError(f"{repo}: no commit yet; make one first: `git add -A && git commit`") from error
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": f"{scratch}/index"}
        own = repo / git(repo, "rev-parse", "--git-path", "index")
        if own.exists():
            shutil.copy2(own, f"{scratch}/index")  # its time tells git which files it has to look into again
        else:
            git(repo, "read-tree", "HEAD", env=index)
        git(repo, "update-index", "-q", "--unmerged", "--really-refresh", env=index)  # finds edits held back by a flag
        git(repo, "add", "--all", env=index)
        tree = git(repo, "write-tree", env=index)
    if tree == git(repo, "rev-parse", "HEAD^{tree}"):
        return head
    return git(repo, "commit-tree", tree, "-p", head, "-m", "Snapshot of a working tree, taken for a run")


def fetch_tags(repo: Path, remote: str) -> str:
    """Bring the versions that others published to a remote, and return its URL."""
    git(repo, "fetch", "--quiet", "--tags", remote)
    url = git(repo, "remote", "get-url", remote)
    return str((repo / url).resolve()) if (repo / url).exists() else url


def refuse_shallow(repo: Path) -> None:
    """Refuse a clone without history: it may lack the tags that say which model is champion.

    Raises:
        LineageError: the clone is shallow.
    """
    if git(repo, "rev-parse", "--is-shallow-repository") == "true":
        raise LineageError(f"{repo}: a shallow clone may lack the champion's tags: `git fetch --unshallow --tags`")


def inputs_key(repo: Path, commit: str, paths: tuple[str, ...]) -> str:
    """Return one line that changes when any of `paths` does."""
    return " ".join(git(repo, "rev-parse", f"{commit}:{path}")[:12] for path in paths)
