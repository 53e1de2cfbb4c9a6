"""`fuseline compare` on a real repository: what a revision may be, what is brought, and what is said where not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
import zc.lockfile
from typer.testing import CliRunner

from fuseline.cli import app
from fuseline.lineage import registry
from fuseline.lineage.dvc import dvc
from tests.comparison.conftest import commit, git, write_model

IDS = [f"e{row}" for row in range(30)]
TRUE = [row % 3 for row in range(30)]
WRONG = [(label + 1) % 3 for label in TRUE]
Run = Callable[..., Path]


def compare(repo: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments, "--repo", str(repo)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def refuse(repo: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments, "--repo", str(repo)], catch_exceptions=False)
    assert done.exit_code == 1
    return done.stderr


@pytest.fixture(scope="module")
def made(run: Run) -> Path:
    """A champion, v1.0.0, that was pushed; then other params, and a better model in the workspace."""
    repo = run(IDS, TRUE, WRONG[:10] + TRUE[10:])
    commit(repo, "First")
    dvc(repo, "push", "--quiet")
    registry.register(repo, "tiny", "HEAD", "v1.0.0", "first")
    registry.assign(repo, "tiny", "v1.0.0", "first")
    params = yaml.safe_load((repo / "params.yaml").read_text())
    params["train"] = {"seed": 5, "new": [1, 2]}
    (repo / "params.yaml").write_text(yaml.safe_dump(params))
    return run(IDS, TRUE, TRUE)


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    """The test's own copy, with the remote beside it."""
    shutil.copytree(made.parent, tmp_path / "all", symlinks=True)
    return tmp_path / "all" / "repo"


def test_without_revisions_the_champion_is_set_against_what_build_holds(repo: Path) -> None:
    before = sorted(str(path) for path in repo.rglob("*") if ".git/" not in str(path) and ".dvc/tmp" not in str(path))
    found = json.loads(compare(repo, "--json"))
    assert (found["before"]["revision"], found["after"]["revision"]) == ("v1.0.0", "workspace")
    assert found["metrics"]["accuracy"]["after"] == 1.0
    assert found["rows"] == 30
    assert found["params"] == {
        "train.new": {"before": None, "after": [1, 2]},
        "train.old": {"before": 1, "after": None},
        "train.seed": {"before": 0, "after": 5},
    }
    after = sorted(str(path) for path in repo.rglob("*") if ".git/" not in str(path) and ".dvc/tmp" not in str(path))
    assert [path for path in after if ".fuseline/data" not in path and path not in before] == [str(repo / ".fuseline")]


def test_the_table_tells_numbers_params_and_what_they_are_of(repo: Path) -> None:
    told = compare(repo, "v1.0.0", "--most", "2")
    for piece in ("Numbers are of the same 30 test rows. 10 answers became right, 0 wrong.",
                  "Classes, F1 (2 of 3 that moved)", "Accuracy", "0.667", "1.000", "+0.333", "NLL ↓",
                  "half: first", "p50, batch 1", "2.00 ms", "throughput, batch 1", "500 examples/s",
                  "Became right, the surest first:\n  e0: green 0.800 → red 0.800, true red\n",
                  "Params: 2 of 3 that differ", "train.old"):  # fmt: skip
        assert piece in told, told


@pytest.mark.parametrize("name", ["v1.0.0", "tiny@v1.0.0", "champion", "HEAD", "main", "COMMIT"])
def test_a_revision_may_have_any_of_its_names(name: str, repo: Path) -> None:
    name = git(repo, "rev-parse", "--short", "HEAD") if name == "COMMIT" else name
    found = json.loads(compare(repo, name, "workspace", "--json"))
    assert found["before"]["commit"] == git(repo, "rev-parse", "HEAD")
    assert found["metrics"]["accuracy"]["before"] == pytest.approx(20 / 30)


def test_what_is_not_in_the_cache_comes_from_the_remote(repo: Path) -> None:
    shutil.rmtree(repo / ".dvc/cache")
    assert json.loads(compare(repo, "--json"))["rows"] == 30


def test_where_nothing_is_left_but_the_published_bundle_its_evidence_is_told_unpaired(repo: Path) -> None:
    git(repo, "stash", "--quiet")
    shutil.copytree(repo / "build/export/bundle", repo / "champion")
    for part in ("evaluate/evaluation.json", "benchmark/benchmark.json"):
        (repo / "champion/evidence").mkdir(exist_ok=True)
        shutil.copy(repo / "build" / part, repo / "champion/evidence")
    dvc(repo, "add", "--quiet", "champion")
    git(repo, "add", "--force", "champion.dvc")
    commit(repo, "Published")
    shutil.rmtree(repo.parent / "store")
    dvc(repo, "push", "--quiet", "champion.dvc")
    shutil.rmtree(repo / ".dvc/cache")
    found = json.loads(compare(repo, "HEAD", "workspace", "--json"))
    assert found["rows"] is None
    assert "only what was published is left" in found["unpaired"]
    assert "Not paired" in compare(repo, "HEAD", "workspace")


def test_a_workspace_that_is_behind_says_so(repo: Path) -> None:
    params = (repo / "params.yaml").read_text()
    (repo / "params.yaml").write_text(params.replace("seed: 5", "seed: 6"))
    assert "build/ is behind, `dvc repro` brings it up to date: train" in compare(repo)


def test_a_workspace_of_which_a_run_has_dvc_s_lock_says_that_it_is_not_known_to_be_up_to_date(repo: Path) -> None:
    lock = zc.lockfile.LockFile(str(repo / ".dvc/tmp/lock"))  # as a running dvc repro has it
    try:
        (note,) = tell_stale(repo)
    finally:
        lock.close()
    assert note.startswith("whether build/ is up to date is not known: ")
    assert "Unable to acquire lock" in note
    assert tell_stale(repo) == []


def tell_stale(repo: Path) -> list[str]:
    found: list[str] = json.loads(compare(repo, "workspace", "workspace", "--json"))["after"]["notes"]
    return found


def test_labels_that_came_are_told_in_the_terminal(repo: Path) -> None:
    for path in (repo / "build").glob("*/**/*.*"):
        path.unlink()
    write_model(repo / "build", IDS, TRUE, TRUE, labels=["red", "green", "blue", "navy"])
    assert "labels: + navy; both are measured over those after" in compare(repo)


def test_an_older_revision_whose_export_names_no_system_is_compared(repo: Path) -> None:
    (repo / "build/export/metrics.json").unlink()
    dvc(repo, "commit", "--quiet", "--force")
    commit(repo, "Older")
    found = json.loads(compare(repo, "HEAD", "workspace", "--json"))
    assert (found["before"]["system"], found["rows"]) == ("ensemble", 30)


def test_what_nobody_knows_is_refused_with_what_is_known(repo: Path) -> None:
    told = refuse(repo, "v9.0.0")
    assert "'v9.0.0' is no version of tiny (registered: v1.0.0)" in told


def test_a_revision_without_a_model_is_refused(repo: Path) -> None:
    assert "HEAD~1 (commit " in (told := refuse(repo, "HEAD~1"))
    assert "has no model" in told


def test_a_model_that_nobody_pushed_is_refused_with_the_way_on(repo: Path) -> None:
    shutil.rmtree(repo / ".dvc/cache")
    shutil.rmtree(repo.parent / "store")
    assert "`dvc push`" in refuse(repo)


def test_an_empty_workspace_is_refused(repo: Path) -> None:
    shutil.rmtree(repo / "build")
    assert "workspace: build/evaluate/evaluation.json, build/export/bundle/bundle.json are not there" in refuse(repo)


def test_without_a_champion_two_revisions_have_to_be_named(repo: Path) -> None:
    git(repo, "tag", "--delete", "tiny@v1.0.0", "tiny#champion#1")
    assert "there is no champion yet" in refuse(repo)
