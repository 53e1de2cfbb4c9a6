"""Prefect's side of a run: thin tasks around fuseline.lineage and fuseline.judge."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from flows.outcome import Outcome
from fuseline import config
from fuseline import judge as judging
from fuseline.errors import DISK_FULL, FuselineError, NotInstalledError, is_disk_full
from fuseline.lineage import champion, dvc, git, registry, runs
from fuseline.lineage import publish as publishing
from fuseline.lineage.workspace import STATE, Workspace, close_workspace, open_workspace, sweep
from fuseline.progress import parse
from fuseline.records import Verdict


@task(cache_policy=NO_CACHE)
def look(folder: Path, force: bool) -> tuple[Workspace, runs.Run | None, str | None]:
    """Snapshot the tree, find the run that judged the same inputs before, and the champion's version."""
    repo = git.root(folder)
    params = config.load(repo / "params.yaml")
    git.refuse_shallow(repo)
    dvc.refuse_other_artifact(repo, params.publish.name)
    dvc.refuse_data_outside_its_remote(repo)
    dvc.refuse_changed_data(repo)
    sweep(repo)
    upstream = git.fetch_tags(repo, params.publish.remote) if params.publish.remote else None
    commit = git.take_snapshot(repo)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    workspace = Workspace(repo, f"{stamp}-{uuid.uuid4().hex[:4]}", commit, upstream)
    now = registry.champion(repo, params.publish.name)
    champion_now = now.version if now else None
    judged = None if force else runs.already_judged(repo, commit, champion_now)
    if judged is None and commit != git.git(repo, "rev-parse", "HEAD"):
        get_run_logger().info("The working tree has uncommitted changes: running on a snapshot of exactly this tree.")
    return workspace, judged, champion_now


@task(cache_policy=NO_CACHE)
def prepare_workspace(workspace: Workspace) -> None:
    """Clone the snapshot and pull the data set."""
    open_workspace(workspace)


@task(cache_policy=NO_CACHE)
def list_stages(workspace: Workspace) -> list[str]:
    """Read the stages of dvc.yaml."""
    return dvc.stages(workspace.clone)


@task(cache_policy=NO_CACHE)
def run_stage(workspace: Workspace, stage: str, force: bool) -> None:
    """Run one stage, its lines to the log and its progress to an artifact."""
    logger = get_run_logger()
    key = f"progress-{stage.replace('@', '-').replace('_', '-').lower()}"
    artifact = create_progress_artifact(0.0, key=key, description=stage)

    def on_line(line: str) -> None:
        if progress := parse(line):
            update_progress_artifact(artifact, float(progress[0]), description=progress[1])  # type: ignore[arg-type]
        logger.info(line)

    # A measurement is no function of files: what another machine or hour measured is not taken from the cache.
    dvc.repro(workspace.clone, stage, on_line, force or stage == "benchmark")
    update_progress_artifact(artifact, 100.0, description=f"{stage}: done")  # type: ignore[arg-type]


@task(cache_policy=NO_CACHE)
def judge(workspace: Workspace, outcome: Outcome) -> Verdict:
    """Score the champion again on today's test rows, answer the gate's rules, write the evidence."""
    evidence = judging.Evidence.read(workspace.clone)
    name = evidence.params.publish.name
    now = registry.champion(workspace.repo, name)
    comparison = None
    if now is not None:
        git.git(workspace.clone, "fetch", "--quiet", "--tags", "origin")  # it may have been published meanwhile
        bundle = champion.fetch(workspace.clone, now.tag, workspace.clone / STATE / "champion")
        comparison = judging.compare(now.version, bundle, workspace.clone, evidence.params.evaluate)
    verdict = evidence.verdict(comparison)
    lineage = {"data": dvc.data_digest(workspace.clone), "commit": workspace.commit, "branch": workspace.branch}
    version = registry.next_version(workspace.repo, name) if verdict.blessed else None
    outcome.planned = version
    created = datetime.now(UTC).isoformat(timespec="seconds")
    judging.write_evidence(
        workspace.evidence, workspace.clone, evidence, verdict, version, workspace.run, created, lineage
    )
    outcome.verdict, outcome.evaluation, outcome.champion = verdict, evidence.evaluation, now.version if now else None
    outcome.paths["report"] = workspace.evidence / "report.html"
    create_table_artifact(
        [rule.model_dump() for rule in verdict.rules],
        key="verdict",
        description="blessed" if verdict.blessed else "refused",
    )
    return verdict


@task(cache_policy=NO_CACHE)
def publish(workspace: Workspace, verdict: Verdict, outcome: Outcome) -> None:
    """Publish a blessed bundle; record a refused one on the run's branch."""
    name = config.load(workspace.clone / "params.yaml").publish.name
    trailers = {
        "Run": workspace.run,
        "Data": outcome.data,
        "Snapshot": workspace.commit,
        "Verdict": "blessed" if verdict.blessed else "refused",
        "Judged-against": verdict.champion or "none",
    }
    failed = [rule for rule in verdict.rules if not rule.passed]
    if outcome.planned is None:
        publishing.record(workspace, f"Retrain {name}: refused", trailers)
        outcome.outcome, outcome.why = (
            "refused",
            f"{len(failed)} rule{'s' * (len(failed) > 1)} failed: "
            + "; ".join(f"{rule.name} ({rule.why})" for rule in failed)
            + ". The champion stays.",
        )
        return
    bundle = publishing.assemble(
        workspace.clone / "build" / "export" / "bundle", workspace.evidence, workspace.clone / champion.LINK
    )
    publishing.publish(workspace, name, outcome.planned, verdict.champion, trailers)
    outcome.outcome, outcome.version, outcome.champion = "published", outcome.planned, outcome.planned
    outcome.why = f"All {len(verdict.rules)} rules passed; {name} {outcome.version} is the champion."
    outcome.paths = {
        "champion": workspace.repo / bundle.name,
        "report": workspace.repo / bundle.name / "evidence" / "report.html",
    }


@contextmanager
def recorded(workspace: Workspace) -> Iterator[Outcome]:
    """Write the run's record however it ends; keep the clone of a failed run for a look."""
    outcome = Outcome(workspace, dvc.data_digest(workspace.repo))
    start, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        yield outcome
        close_workspace(workspace)
    except BaseException as error:
        outcome.outcome, outcome.why = "failed", str(error) or type(error).__name__
        raise
    finally:
        outcome.seconds = time.monotonic() - start
        runs.write_run(workspace.repo, runs.Run(
            run=workspace.run, started=started, seconds=outcome.seconds, outcome=outcome.outcome,  # type: ignore[arg-type]
            why=outcome.why, version=outcome.version, champion=outcome.champion, data=outcome.data,
            inputs=git.inputs_key(workspace.repo, workspace.commit, runs.INPUTS),
        ))  # fmt: skip


def main(flow: Any) -> None:
    """Run a flow from the command line; an error that the user can mend is told in plain words."""
    parser = argparse.ArgumentParser(description=flow.description)
    parser.add_argument("--force", action="store_true", help="train again even if these inputs were judged before")
    arguments = parser.parse_args()
    # Prefect ends a terminated run with the handler it found: this one lets its temporary server be stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        flow(force=arguments.force)
    except NotInstalledError as error:
        sys.exit(f"\nerror: {error}")
    except FuselineError as error:
        sys.exit(f"\nerror: {error}\nThe champion is untouched.")
    except OSError as error:
        if not is_disk_full(error):
            raise
        sys.exit(f"\nerror: {DISK_FULL}\nThe champion is untouched.")
