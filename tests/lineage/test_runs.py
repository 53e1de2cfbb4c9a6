import json
import os
import subprocess

import pytest

from fuseline.lineage.git import git, inputs_key, take_snapshot
from fuseline.lineage.runs import INPUTS, Run, already_judged, read_runs, write_run


@pytest.fixture
def key(repo, monkeypatch):
    monkeypatch.setattr("fuseline.lineage.runs.INPUTS", ("a.txt",))
    return inputs_key(repo, take_snapshot(repo), ("a.txt",))


def run(name, key, outcome, version, champion, **more):
    return Run(
        run=name, started="2026-01-01T00:00:00+00:00", seconds=1.0, outcome=outcome, why="", version=version,
        champion=champion, data="d", inputs=key, **more,
    )  # fmt: skip


def publish(repo, name, key, version):
    """Commit and tag a version as a run does, on a branch of its own."""
    git(repo, "checkout", "--quiet", "-b", f"retrain/{name}")
    trailers = f"Run: {name}\nData: d9\nInputs: {key}\nVerdict: blessed"
    git(repo, "commit", "--quiet", "--allow-empty", "-m", f"Retrain fusion: {version}\n\n{trailers}")
    git(repo, "tag", "-a", "-m", version, f"fusion@{version}")
    git(repo, "checkout", "--quiet", "main")


def judged(repo, champion):
    return already_judged(repo, take_snapshot(repo), "fusion", champion)


@pytest.mark.parametrize(
    ("version", "champion_now"),
    [
        pytest.param("v1.0.0", "v1.0.0", id="still champion"),
        pytest.param("v1.1.0", "v1.0.0", id="rolled back"),
        pytest.param("v1.0.0", None, id="unassigned"),
    ],
)
def test_a_published_version_is_not_made_again_where_it_is(repo, key, version, champion_now):
    publish(repo, "r1", key, version)
    write_run(repo, run("r1", key, "published", version, version))
    assert judged(repo, champion_now).version == version


def test_a_version_whose_tags_were_deleted_is_judged_again(repo, key):
    publish(repo, "r1", key, "v1.0.0")
    write_run(repo, run("r1", key, "published", "v1.0.0", "v1.0.0"))
    git(repo, "tag", "--delete", "fusion@v1.0.0")
    assert judged(repo, None) is None


def test_a_version_number_that_was_given_anew_says_nothing_of_its_first_owner(repo, key):
    write_run(repo, run("r1", key, "published", "v1.0.0", "v1.0.0"))
    publish(repo, "r2", "other inputs", "v1.0.0")
    assert judged(repo, "v1.0.0") is None


@pytest.mark.parametrize(
    ("outcome", "champion_then", "champion_now", "again"),
    [
        pytest.param("refused", "v1.0.0", "v1.0.0", False, id="refused by the same champion: nothing to do"),
        pytest.param("refused", None, None, False, id="refused without a champion: nothing to do"),
        pytest.param("refused", "v1.0.0", "v1.1.0", True, id="refused by another champion: judged again"),
        pytest.param("refused", "v1.0.0", None, True, id="refused, and the champion is gone: judged again"),
        pytest.param("failed", "v1.0.0", "v1.0.0", True, id="failed: tried again"),
    ],
)
def test_inputs_are_judged_again_where_that_can_change_something(
    repo, key, outcome, champion_then, champion_now, again
):
    write_run(repo, run("r1", key, outcome, None, champion_then))
    assert (judged(repo, champion_now) is None) is again


def test_what_this_machine_alone_refused_is_judged_again(repo, key):
    write_run(repo, run("r1", key, "refused", None, "v1.0.0", by_machine_alone=True))
    assert judged(repo, "v1.0.0") is None


def test_a_record_from_before_machines_were_told_apart_stays_readable(repo, key):
    write_run(repo, run("r1", key, "refused", None, "v1.0.0"))
    path = repo / ".fuseline/runs/r1/run.json"
    document = json.loads(path.read_text())
    del document["by_machine_alone"]
    path.write_text(json.dumps(document))
    assert judged(repo, "v1.0.0").run == "r1"


def test_what_another_clone_published_is_known_by_its_tag(repo, key):
    publish(repo, "r9", key, "v1.0.0")
    found = judged(repo, "v1.0.0")
    assert (found.run, found.version, found.data) == ("r9", "v1.0.0", "d9")
    (repo / "a.txt").write_text("two\n")
    assert judged(repo, "v1.0.0") is None


def test_other_inputs_are_judged(repo, key):
    write_run(repo, run("r1", key, "refused", None, "v1.0.0"))
    (repo / "a.txt").write_text("two\n")
    assert judged(repo, "v1.0.0") is None


def test_runs_come_latest_first_and_unreadable_ones_do_no_harm(repo, key):
    for name in ("20260101", "20260102"):
        write_run(repo, run(name, key, "failed", None, None))
    (repo / ".fuseline/runs/20260103").mkdir()
    (repo / ".fuseline/runs/20260103/run.json").write_text("{")
    assert [each.run for each in read_runs(repo)] == ["20260102", "20260101"]


def test_the_inputs_are_tracked_files_of_this_project():
    from pathlib import Path

    root = Path(__file__).parents[2]
    assert git(root, "ls-tree", "--name-only", "HEAD", *INPUTS).split() == sorted(INPUTS)


def test_a_run_at_work_whose_process_is_gone_was_killed():
    gone = subprocess.Popen(["true"])
    gone.wait()
    states = [run("r", "k", outcome, None, None, pid=pid).state for outcome, pid in
              (("running", os.getpid()), ("running", gone.pid), ("running", None), ("failed", gone.pid))]  # fmt: skip
    assert states == ["running", "killed", "killed", "failed"]


def test_a_run_at_work_settles_nothing(repo, key):
    write_run(repo, run("r1", key, "running", None, None, pid=os.getpid()))
    assert judged(repo, None) is None
