"""What a name of a revision stands for, and the few files that tell of the model there, brought through DVC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fuseline.errors import LineageError
from fuseline.lineage import registry
from fuseline.lineage.data import scratch
from fuseline.lineage.dvc import dvc, find_stale, share_cache
from fuseline.lineage.git import git

WORKSPACE = "workspace"
"""What build/ holds now, as DVC calls it."""
CHAMPION = "champion"
BUILT = {
    "evaluation": ("evaluate", "build/evaluate/evaluation.json"),
    "predictions": ("evaluate", "build/evaluate/predictions.parquet"),
    "bundle": ("export", "build/export/bundle/bundle.json"),
    "exported": ("export", "build/export/metrics.json"),
    "benchmark": ("benchmark", "build/benchmark/benchmark.json"),
    "preparation": ("prepare", "build/prepare/preparation.json"),
}
"""By name: the stage that writes it, and where."""
NEEDED = ("evaluation", "bundle")
PUBLISHED = {
    "evaluation": "champion/evidence/evaluation.json", "bundle": "champion/bundle.json",
    "benchmark": "champion/evidence/benchmark.json",
}  # fmt: skip
"""What of it is in a published bundle: all that is left where the outputs of its stages are gone."""
_METADATA = ("dvc.yaml", "dvc.lock", "params.yaml", "champion.dvc")


@dataclass(frozen=True)
class Revision:
    """A place in history where a model may be."""

    name: str
    """As it was asked for; of the champion its version."""
    commit: str | None
    """None is the workspace."""
    version: str | None = None
    """Where it is a registered one."""


@dataclass(frozen=True)
class Evidence:
    """Files that tell of a model, by the names of BUILT, and what its stages ran on."""

    files: Mapping[str, Path]
    params: Mapping[str, Any] | None
    """By dotted key, as dvc.lock has them; None where it has none."""
    data: str | None
    """Data revision."""
    stale: Mapping[str, list[str]] = field(default_factory=dict)
    """Of the workspace: what changed since stages were run, by the stage that it matters to."""
    unknown: str = ""
    """Of the workspace: why `stale` could not be found out; empty where it could."""


def resolve(repo: Path, name: str, asked: str) -> Revision:
    """Find what a word stands for: the workspace, the champion, a registered version, or whatever git knows.

    Args:
        name: of the models, `publish.name`.

    Raises:
        LineageError: it stands for nothing.
    """
    if asked == WORKSPACE:
        return Revision(asked, None)
    if asked == CHAMPION:
        now = registry.champion(repo, name)
        if now is None:
            raise LineageError(
                "there is no champion yet: `make retrain` makes one; or name two revisions, such as HEAD~1 workspace"
            )
        return Revision(now.version, now.commit, now.version)
    known = registry.versions(repo, name)
    version = asked.removeprefix(f"{name}@")
    if version in known:
        return Revision(version, _commit(repo, f"refs/tags/{name}@{version}"), version)
    try:
        return Revision(asked, _commit(repo, asked))
    except LineageError as error:
        raise LineageError(
            f"{asked!r} is no version of {name} (registered: {', '.join(known) or 'none'}), no revision that git "
            f"knows, and neither {CHAMPION} nor {WORKSPACE}"
        ) from error


def _commit(repo: Path, revision: str) -> str:
    return git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


@contextmanager
def evidence_at(repo: Path, revision: Revision) -> Iterator[Evidence]:
    """Give the files that tell of a revision's model; those of a commit are gone afterwards.

    Nothing in the working tree changes.

    Raises:
        LineageError: there is no model, or it cannot be had.
    """
    if revision.commit is None:
        yield _look_around(repo)
        return
    with scratch(repo) as place:
        for name in _METADATA:
            if (document := _show(repo, revision.commit, name)) is not None:
                (place / name).write_text(document, encoding="utf-8")
        dvc(place, "init", "--no-scm", "--quiet")
        share_cache(repo, place)
        yield _bring(place, revision)


def _show(repo: Path, commit: str, name: str) -> str | None:
    """Return a file as a commit has it; None where it has none."""
    if not git(repo, "ls-tree", commit, "--", name):
        return None
    return git(repo, "show", f"{commit}:{name}")


def _look_around(repo: Path) -> Evidence:
    files = {name: repo / path for name, (_, path) in BUILT.items() if (repo / path).is_file()}
    if missing := [BUILT[name][1] for name in NEEDED if name not in files]:
        raise LineageError(
            f"{WORKSPACE}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there, so there is no model "
            "to compare: `dvc repro` makes it; or name a revision that has one"
        )
    lock = _read_lock(repo)
    told = files, params_of(lock), _data(lock)
    try:
        return Evidence(*told, find_stale(repo, *(stage for stage in ("export", "benchmark") if stage in lock)))
    except LineageError as error:  # a half-edited dvc.yaml, or a run that goes on, is no reason to show nothing
        return Evidence(*told, unknown=" ".join(str(error).split()))


def _bring(place: Path, revision: Revision) -> Evidence:
    """Pull what dvc.lock names; where that is gone, what was published."""
    lock, told = _read_lock(place), _tell(revision)
    wanted = {name: path for name, (stage, path) in BUILT.items() if stage in lock}
    published = (place / "champion.dvc").exists()
    if not set(NEEDED) <= set(wanted) and not published:
        raise LineageError(
            f"{told} has no model: its dvc.lock names no outputs of evaluate and export, and it has no champion.dvc; "
            "name a version (`fuseline status` lists them), or a commit made after `dvc repro`"
        )
    problem: LineageError | None = None
    for paths in ([wanted] if set(NEEDED) <= set(wanted) else []) + ([PUBLISHED] if published else []):
        try:
            dvc(place, "pull", *paths.values())
            return Evidence(_find(place, paths), params_of(lock), _data(lock))
        except LineageError as error:
            problem = problem or error
    raise LineageError(
        f"the model of {told} is neither in DVC's cache nor in a remote within reach: push it where it was made "
        f"(`dvc push`), or point DVC at the remote that holds it (`dvc remote modify --local artifacts url …`). "
        f"({problem})"
    ) from problem


def _find(place: Path, paths: Mapping[str, str]) -> dict[str, Path]:
    """Return which files were brought: DVC says nothing of those that their stage did not write at the time."""
    found = {name: place / path for name, path in paths.items() if (place / path).is_file()}
    if missing := [paths[name] for name in NEEDED if name not in found]:
        raise LineageError(f"{', '.join(missing)}: not among the outputs of its stage")
    return found


def _tell(revision: Revision) -> str:
    assert revision.commit is not None
    short = revision.commit[:10]
    return short if revision.commit.startswith(revision.name) else f"{revision.name} (commit {short})"


def _read_lock(folder: Path) -> dict[str, Any]:
    """Return the stages of dvc.lock; none where there is none."""
    path = folder / "dvc.lock"
    if not path.exists():
        return {}
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"])
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise LineageError(f"{path}: cannot be read as DVC's; restore it: `git checkout dvc.lock`") from error


def params_of(lock: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the params that the stages of a dvc.lock ran with, by dotted key; None where it has none.

    DVC keeps the records of members that are gone: what other stages say goes before theirs, and a whole section, which
    the ensemble was combined by, before parts of it.
    """
    by_stage = sorted(lock.items(), key=lambda item: "@" not in item[0])
    sections = {
        key: value for _, stage in by_stage for key, value in stage.get("params", {}).get("params.yaml", {}).items()
    }
    whole = {key: value for key, value in sections.items() if not _wider(key) & sections.keys()}
    return dict(_flatten(whole)) or None


def _wider(key: str) -> set[str]:
    """Return the sections that a dotted key is part of."""
    parts = key.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _data(lock: Mapping[str, Any]) -> str | None:
    """Return the data revision that was validated."""
    deps = lock.get("validate", {}).get("deps", [])
    return next((dep["md5"].removesuffix(".dir") for dep in deps if dep.get("path") == "data" and "md5" in dep), None)
