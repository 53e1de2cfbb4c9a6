"""Make a blessed bundle the champion: push, commit, fetch back, and only then tag."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fuseline.errors import LineageError, NotInstalledError, PublishError
from fuseline.lineage import champion, registry, start
from fuseline.lineage.dvc import data_digest, dvc
from fuseline.lineage.git import git, inputs_key
from fuseline.lineage.runs import INPUTS
from fuseline.lineage.workspace import STATE, Workspace
from fuseline.records import REVIEW, Verdict
from fuseline.runtime.signature import SIGNING_KEY, sign


def conclude(workspace: Workspace, name: str, verdict: Verdict, version: str | None) -> Path | None:
    """Publish a blessed bundle as `version`; record a refused one on the run's branch.

    Returns:
        The link to the champion that was published, None after a refusal.
    """
    trailers = {
        "Run": workspace.run,
        "Data": data_digest(workspace.clone),
        "Inputs": inputs_key(workspace.repo, workspace.commit, INPUTS),
        "Snapshot": workspace.commit,
        "Verdict": "blessed" if verdict.blessed else "refused",
        "Judged-against": verdict.champion or "none",
    }
    if version is None:
        record(workspace, f"Retrain {name}: refused", trailers)
        return None
    assemble(workspace.clone / "build" / "export" / "bundle", workspace.evidence, workspace.clone / champion.LINK)
    publish(workspace, name, version, verdict.champion, trailers)
    return workspace.repo / champion.LINK


def assemble(bundle: Path, evidence: Path, target: Path) -> Path:
    """Copy bundle and evidence, but for the examples to look at again, to one folder: what is published.

    It is signed where the environment names a key.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target)
    shutil.copytree(evidence, target / "evidence", ignore=shutil.ignore_patterns(REVIEW))
    if key := os.environ.get(SIGNING_KEY):
        sign(target, Path(key))
    return target


def record(workspace: Workspace, subject: str, trailers: dict[str, str]) -> str:
    """Commit on the run's branch the lock file, what was started from, and a bundle, if any; return the commit.

    The branch goes to the repository that the run was started from, and to its shared remote where it has one.
    """
    clone = workspace.clone
    recorded = ("dvc.lock", "champion.dvc", start.RECORD, start.TRACKED)
    paths = [path for path in recorded if (clone / path).exists()]
    git(clone, "add", "--force", *paths)
    message = "\n".join([subject, "", *(f"{key}: {value}" for key, value in trailers.items())])
    git(clone, "commit", "--quiet", "--allow-empty", "--no-verify", "--no-gpg-sign", "-m", message)
    for target in workspace.targets:
        git(clone, "push", "--quiet", target, workspace.branch)
    return git(clone, "rev-parse", "HEAD")


def publish(
    workspace: Workspace, name: str, version: str, judged_against: str | None, trailers: dict[str, str]
) -> None:
    """Publish the clone's champion/ as `version`.

    Args:
        judged_against: version of the champion that the verdict compares with, None if there was none.

    Raises:
        PublishError: the champion moved since it was judged against; it stays.
        LineageError: a step failed; the champion stays, and what was pushed does no harm.
    """
    clone, repo = workspace.clone, workspace.repo
    champion.check_place(repo)
    dvc(clone, "add", champion.LINK)
    dvc(clone, "push")
    subject = f"Retrain {name}: {version}"
    commit = record(workspace, subject, trailers)
    bundle = champion.fetch_anew(repo, f"origin/{workspace.branch}", repo / STATE / "incoming" / workspace.run)
    _bring_assignments(clone, name)
    _refuse_if_moved(clone, name, judged_against)
    registry.register(clone, name, commit, version, subject)
    stage_tag = registry.assign(clone, name, version, f"Assigned by run {workspace.run}")
    first, *others = workspace.targets  # the first decides; a later refusal can only be mended
    _push_tags(clone, first, f"refs/tags/{name}@{version}", f"refs/tags/{stage_tag}")
    for target in others:
        _hand_on_tags(clone, target, version, f"refs/tags/{name}@{version}", f"refs/tags/{stage_tag}")
    champion.install(repo, bundle, version)


def _push_tags(clone: Path, target: str, *tags: str) -> None:
    """Push tags, all or none: their names are the lock, and of two runs the second finds them taken."""
    try:
        git(clone, "push", "--quiet", "--atomic", target, *tags)
    except LineageError as error:
        raise PublishError(
            f"{target} did not take {', '.join(tags)}: another run was first, or it cannot be "
            f"written to; run again. ({error})"
        ) from error


def _hand_on_tags(clone: Path, target: str, version: str, *tags: str) -> None:
    try:
        git(clone, "push", "--quiet", "--atomic", target, *tags)
    except LineageError as error:
        raise NotInstalledError(
            f"{version} is the champion by the shared remote's tags, but {target} did not take them; mend that, "
            f"`git fetch --tags`, then `fuseline promote {version}`. ({error})"
        ) from error


def _bring_assignments(clone: Path, name: str) -> None:
    git(clone, "fetch", "--quiet", "origin", f"refs/tags/{name}*:refs/tags/{name}*")


def _refuse_if_moved(clone: Path, name: str, judged_against: str | None) -> None:
    now = registry.champion(clone, name)
    if (now.version if now else None) != judged_against:
        raise PublishError(
            f"the champion is now {now.version if now else 'none'}, but the verdict compares with "
            f"{judged_against or 'none'}; run again"
        )
