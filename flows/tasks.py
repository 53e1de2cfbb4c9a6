"""Prefect's side of a run: thin tasks around fuseline.lineage and fuseline.judge."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from flows.outcome import Outcome
from fuseline import config
from fuseline.errors import DISK_FULL, FuselineError, LineageError, NotInstalledError, is_disk_full
from fuseline.lineage import champion, data, dvc, git, registry, runs, start
from fuseline.lineage.publish import conclude
from fuseline.lineage.workspace import Workspace, close_workspace, keep_validation, open_workspace, sweep
from fuseline.progress import let_go_of_stdout, parse
from fuseline.report.tables import tell_answer

if TYPE_CHECKING:
    from fuseline.judge import Judgement

REFUSED = 3
"""Exit code of a run whose bundle was refused: all went well, and nothing was published."""


@task(task_run_name="look", cache_policy=NO_CACHE)
def look(folder: Path, force: bool) -> tuple[Workspace, runs.Run | None, str | None]:
    """Snapshot the tree, find the run that judged the same inputs before, and the champion's version."""
    repo = git.root(folder)
    params = config.load(repo / "params.yaml")
    git.refuse_shallow(repo)
    dvc.refuse_other_artifact(repo, params.publish.name)
    dvc.refuse_data_outside_its_remote(repo)
    data.finish_swap(repo)
    dvc.refuse_changed_data(repo)
    sweep(repo)
    upstream = git.fetch_tags(repo, params.publish.remote) if params.publish.remote else None
    commit = git.take_snapshot(repo)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    workspace = Workspace(repo, f"{stamp}-{uuid.uuid4().hex[:4]}", commit, upstream)
    now = registry.champion(repo, params.publish.name)
    champion_now = now.version if now else None
    judged = None if force else runs.already_judged(repo, commit, params.publish.name, champion_now)
    if judged is None and commit != git.git(repo, "rev-parse", "HEAD"):
        get_run_logger().info("The working tree has uncommitted changes: running on a snapshot of exactly this tree.")
    return workspace, judged, champion_now


@task(task_run_name="prepare workspace", cache_policy=NO_CACHE)
def prepare_workspace(workspace: Workspace) -> None:
    """Clone the snapshot, pull the data set, the champion's bundle and the members that training goes on from."""
    from fuseline.judge import fetch_champion  # here and below: three seconds that a run with nothing to do is spared

    get_run_logger().info(f"This is run {workspace.run}.")
    open_workspace(workspace)
    params = config.load(workspace.clone / "params.yaml")
    fetch_champion(workspace, params.publish.name)
    start.bring(workspace.clone, registry.champion(workspace.repo, params.publish.name), params.members.warm())


@task(task_run_name="list stages", cache_policy=NO_CACHE)
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
        os.utime(workspace.clone)  # so that no other run takes it for what a failed one left

    # A measurement is no function of files: what another machine or hour measured is not taken from the cache.
    dvc.repro(workspace.clone, stage, on_line, force or stage == "benchmark")
    update_progress_artifact(artifact, 100.0, description=f"{stage}: done")  # type: ignore[arg-type]


@task(task_run_name="judge", cache_policy=NO_CACHE)
def judge(workspace: Workspace, outcome: Outcome) -> Judgement:
    """Answer the gate's rules and write the evidence."""
    from fuseline.judge import judge_run

    judgement = judge_run(workspace)
    verdict = judgement.verdict
    outcome.verdict, outcome.champion = verdict, verdict.champion
    outcome.evaluation, outcome.system = judgement.evaluation, judgement.system
    outcome.by_machine_alone, outcome.against = judgement.by_machine_alone, judgement.against
    outcome.paths["report"] = workspace.evidence / "report.html"
    rules = [
        {"outcome": tell_answer(rule) if rule.passed else tell_answer(rule).upper(), "verdict": rule.kind,
         "rule": rule.name,
         "value": "–" if rule.value is None else f"{rule.value:.4g}", "bound": rule.bound, "why": rule.why}
        for rule in verdict.rules
    ]  # fmt: skip
    create_table_artifact(rules, key="verdict", description="blessed" if verdict.blessed else "refused")
    return judgement


@task(task_run_name="publish", cache_policy=NO_CACHE)
def publish(workspace: Workspace, judgement: Judgement, outcome: Outcome) -> None:
    """Publish a blessed bundle; record a refused one."""
    place = conclude(workspace, judgement.name, judgement.verdict, judgement.version)
    if place is None:
        outcome.refused()
    else:
        outcome.published(judgement.name, str(judgement.version), place)


@contextmanager
def recorded(workspace: Workspace) -> Iterator[Outcome]:
    """Write the run's record however it ends; keep the clone of a failed run for a look."""
    outcome = Outcome(workspace, dvc.data_digest(workspace.repo))
    start, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def write(state: str) -> None:
        runs.write_run(workspace.repo, runs.Run(
            run=workspace.run, started=started, seconds=time.monotonic() - start, outcome=state,  # type: ignore[arg-type]
            why=outcome.why, version=outcome.version, champion=outcome.champion, data=outcome.data,
            inputs=git.inputs_key(workspace.repo, workspace.commit, runs.INPUTS),
            by_machine_alone=outcome.by_machine_alone, pid=os.getpid(),
        ))  # fmt: skip

    write("running")  # it stays where the process is killed
    try:
        yield outcome
        keep_validation(workspace)
        close_workspace(workspace)
    except BaseException as error:
        if outcome.outcome == "failed":  # what was published or refused is so, whatever came after
            outcome.why = str(error) or type(error).__name__
        keep_validation(workspace)
        raise
    finally:
        outcome.seconds = time.monotonic() - start
        write(outcome.outcome)


def main(flow: Any) -> None:
    """Run a flow from the command line; an error that the user can mend is told in plain words.

    Exit codes: 0 published, or nothing to do; REFUSED; 1 an error.
    """
    parser = argparse.ArgumentParser(description=flow.description)
    parser.add_argument("--force", action="store_true", help="train again even if these inputs were judged before")
    arguments = parser.parse_args()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    # Prefect ends a terminated run with the handler it found: this one lets its temporary server be stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        root = git.root(Path.cwd())
    except LineageError as error:
        sys.exit(f"\nerror: {error}")
    with _told_plainly(root):
        git.refuse_shallow(root)
        config.load(root / "params.yaml")  # before a server starts for nothing
        outcome = flow(force=arguments.force)
        sys.stdout.flush()
    if outcome.outcome == "refused":
        sys.exit(REFUSED)


@contextmanager
def _told_plainly(repo: Path) -> Iterator[None]:
    """End the program with an error's own words, and with the champion's fate as tags and link have it."""
    before = champion.trace(repo)
    try:
        yield
    except NotInstalledError as error:  # it says itself what became champion, and where
        sys.exit(f"\nerror: {error}")
    except FuselineError as error:
        told = str(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        let_go_of_stdout()
        told = DISK_FULL
    else:
        return
    changed = champion.trace(repo) != before
    fate = "The champion is another than before: see `fuseline status`." if changed else "The champion is untouched."
    sys.exit(f"\nerror: {told}\n{fate}")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave the traceback out of an error that the user can mend."""
    if record.exc_info and isinstance(record.exc_info[1], FuselineError):
        record.exc_info = None
    return True
