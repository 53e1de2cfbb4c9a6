"""Versions and the champion as git tags, through GTO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.errors import LineageError, PublishError
from fuseline.lineage.git import git, identity

STAGE = "champion"
_OURS = re.compile(r"[^@#]+(@v\d+\.\d+\.\d+|#\w+!?#\d+)")
"""Versions and assignments as Fuseline makes them, and GTO's unassignments; other tags are somebody else's."""


@dataclass(frozen=True)
class Registered:
    """The champion as the tags tell: version such as v1.2.0, its tag, commit, and when it was assigned."""

    version: str
    tag: str
    commit: str
    assigned: str


def champion(repo: Path, name: str) -> Registered | None:
    """Return the current champion, None while there is none.

    It is what was assigned last, but for what was unassigned since by `gto deprecate NAME VERSION champion`: then what
    was assigned before that, as GTO itself has it.
    """
    latest = _latest_assignment(repo, name)
    if latest is None:
        return None
    commit, assigned = (
        _commit(repo, latest),
        git(repo, "for-each-ref", "--format=%(creatordate:iso8601)", f"refs/tags/{latest}"),
    )
    at_commit = _tags(repo, "--points-at", commit, f"{name}@v*")
    if not at_commit:
        raise LineageError(f"tag {latest} stands on a commit without a version tag {name}@v…; delete that tag")
    version = max(at_commit, key=_number)
    return Registered(version.partition("@")[2], version, commit, assigned)


def _latest_assignment(repo: Path, name: str) -> str | None:
    events = _tags(repo, f"{name}#{STAGE}#*", f"{name}#{STAGE}!#*")
    settled = set()
    for tag in sorted(events, key=_count, reverse=True):
        commit = _commit(repo, tag)
        if commit not in settled and not tag.startswith(f"{name}#{STAGE}!"):
            return tag
        settled.add(commit)
    return None


def _commit(repo: Path, tag: str) -> str:
    return git(repo, "log", "-1", "--format=%H", tag)


def versions(repo: Path, name: str) -> list[str]:
    """Return all registered versions, oldest first."""
    return [tag.partition("@")[2] for tag in sorted(_tags(repo, f"{name}@v*"), key=_number)]


def register(repo: Path, name: str, commit: str, version: str, message: str) -> None:
    """Tag a commit as a version."""
    _gto("register", repo, name=name, ref=commit, version=version, message=message)


def assign(repo: Path, name: str, version: str, message: str) -> str:
    """Make a registered version the champion; return the new tag. Assigning an older one is the rollback."""
    _gto("assign", repo, name=name, stage=STAGE, version=version, message=message, force=True)
    return max(_tags(repo, f"{name}#{STAGE}#*"), key=_count)


def next_version(repo: Path, name: str) -> str:
    """Return v1.0.0, or the minor version after the highest one."""
    known = versions(repo, name)
    if not known:
        return "v1.0.0"
    major, minor, _ = _number(f"{name}@{known[-1]}")
    return f"v{major}.{minor + 1}.0"


def _gto(action: str, repo: Path, **arguments: Any) -> None:
    import gto.api  # here: it takes a second, and reading tags does not need it
    from gto.exceptions import GTOException

    who = identity(repo)
    author = {"author": who["GIT_AUTHOR_NAME"], "author_email": who["GIT_AUTHOR_EMAIL"]}
    try:
        getattr(gto.api, action)(repo, **arguments, **author)
    except GTOException as error:
        raise PublishError(f"GTO refused to {action} {arguments['name']}: {error}") from error


def _tags(repo: Path, *patterns: str) -> list[str]:
    listed = git(repo, "tag", "--list", *patterns).split()
    return [tag for tag in listed if _OURS.fullmatch(tag)]


def _count(tag: str) -> int:
    return int(tag.rpartition("#")[2])


def _number(tag: str) -> tuple[int, int, int]:
    major, minor, patch = tag.rpartition("@v")[2].split(".")
    return int(major), int(minor), int(patch)
