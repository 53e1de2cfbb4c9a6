import pytest

from fuseline.lineage.git import git, inputs_key, take_snapshot
from fuseline.lineage.runs import INPUTS, Run, already_judged, read_runs, write_run


@pytest.fixture
def key(repo, monkeypatch):
    monkeypatch.setattr("fuseline.lineage.runs.INPUTS", ("a.txt",))
    return inputs_key(repo, take_snapshot(repo), ("a.txt",))


def run(name, key, outcome, version, champion):
    return Run(
        run=name, started="2026-01-01T00:00:00+00:00", seconds=1.0, outcome=outcome, why="", version=version,
        champion=champion, data="d", inputs=key,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "version", "champion_then", "champion_now", "again"),
    [
        pytest.param(
            "published", "v1.0.0", "v1.0.0", "v1.0.0", False, id="published and still champion: nothing to do"
        ),
        pytest.param(
            "published", "v1.1.0", "v1.1.0", "v1.0.0", False, id="published and rolled back: stays rolled back"
        ),
        pytest.param("refused", None, "v1.0.0", "v1.0.0", False, id="refused by the same champion: nothing to do"),
        pytest.param("refused", None, "v1.0.0", "v1.1.0", True, id="refused by another champion: judged again"),
        pytest.param("refused", None, "v1.0.0", None, True, id="refused, and the champion is gone: judged again"),
        pytest.param("failed", None, "v1.0.0", "v1.0.0", True, id="failed: tried again"),
    ],
)
def test_inputs_are_judged_again_where_that_can_change_something(
    repo, key, outcome, version, champion_then, champion_now, again
):
    write_run(repo, run("r1", key, outcome, version, champion_then))
    assert (already_judged(repo, take_snapshot(repo), "fusion", champion_now) is None) is again


def test_what_another_clone_published_is_known_by_its_tag(repo, key):
    trailers = f"Run: r9\nData: d9\nInputs: {key}\nVerdict: blessed"
    git(repo, "commit", "--quiet", "--allow-empty", "-m", f"Retrain fusion: v1.0.0\n\n{trailers}")
    git(repo, "tag", "-a", "-m", "v1.0.0", "fusion@v1.0.0")
    judged = already_judged(repo, take_snapshot(repo), "fusion", "v1.0.0")
    assert judged is not None
    assert (judged.run, judged.version, judged.data) == ("r9", "v1.0.0", "d9")
    (repo / "a.txt").write_text("two\n")
    assert already_judged(repo, take_snapshot(repo), "fusion", "v1.0.0") is None


def test_other_inputs_are_judged(repo, key):
    write_run(repo, run("r1", key, "published", "v1.0.0", "v1.0.0"))
    (repo / "a.txt").write_text("two\n")
    assert already_judged(repo, take_snapshot(repo), "fusion", "v1.0.0") is None


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
