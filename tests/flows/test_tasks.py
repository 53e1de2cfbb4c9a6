"""The command line tells how a run ended, and of the champion only what is so."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.outcome import Outcome, end
from flows.tasks import main, recorded
from fuseline.errors import DataError, NotInstalledError
from fuseline.lineage.champion import install
from fuseline.lineage.git import git, take_snapshot
from fuseline.lineage.runs import read_runs
from fuseline.lineage.workspace import Workspace

ROOT = Path(__file__).parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository, and the working folder of a command line without arguments."""
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Start")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["retrain"])
    before = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, before)


def ended(flow: Callable[..., object]) -> object:
    """Run a flow from the command line; return what the program ended with: an exit code, or words."""
    flow.description = ""  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as caught:
        main(flow)
    return caught.value.code


def swap(repo: Path) -> None:
    (repo / ".fuseline/incoming/v1.0.0").mkdir(parents=True)
    install(repo, repo / ".fuseline/incoming/v1.0.0", "v1.0.0")


@pytest.mark.parametrize("outcome", ["published", "unchanged"])
def test_a_run_that_needs_nobody_ends_with_0(outcome: str, repo: Path) -> None:
    def flow(force: bool) -> SimpleNamespace:
        return SimpleNamespace(outcome=outcome)

    flow.description = ""  # type: ignore[attr-defined]
    main(flow)


def test_a_refused_run_ends_with_3(repo: Path) -> None:
    assert ended(lambda force: SimpleNamespace(outcome="refused")) == 3


@pytest.mark.parametrize(
    ("error", "words"),
    [(DataError("no rows"), "no rows"), (FULL, "no disk space left; free some and run again")],
    ids=["by an error of the user's", "by a full disk"],
)
def test_a_run_that_is_stopped_before_it_publishes_leaves_the_champion(
    error: Exception, words: str, repo: Path
) -> None:
    def flow(force: bool) -> None:
        raise error

    assert ended(flow) == f"\nerror: {words}\nThe champion is untouched."


def test_a_disk_that_fills_after_the_swap_is_not_told_as_if_before_it(repo: Path) -> None:
    def flow(force: bool) -> None:
        swap(repo)
        raise FULL

    assert str(ended(flow)).endswith("\nThe champion is another than before: see `fuseline status`.")


def test_a_tag_alone_makes_another_champion(repo: Path) -> None:
    def flow(force: bool) -> None:
        git(repo, "tag", "-a", "-m", "assigned", "fusion#champion#1")
        raise FULL

    assert str(ended(flow)).endswith("\nThe champion is another than before: see `fuseline status`.")


def test_a_version_that_was_not_installed_speaks_for_itself(repo: Path) -> None:
    def flow(force: bool) -> None:
        raise NotInstalledError("v1.0.0 is the champion by the shared remote's tags")

    assert ended(flow) == "\nerror: v1.0.0 is the champion by the shared remote's tags"


def test_outside_a_repository_nothing_is_said_of_a_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["retrain"])
    assert "champion" not in str(ended(lambda force: None))


def test_a_run_that_is_interrupted_after_it_published_is_recorded_as_published(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    monkeypatch.setattr("fuseline.lineage.runs.INPUTS", ("params.yaml",))

    def publish() -> None:
        with recorded(Workspace(repo, "r1", take_snapshot(repo))) as outcome:
            outcome.outcome, outcome.why, outcome.version = "published", "All rules passed", "v1.0.0"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish()
    [run] = read_runs(repo)
    assert (run.outcome, run.why) == ("published", "All rules passed")


@pytest.mark.parametrize("outcome", ["published", "refused", "unchanged"])
def test_prefect_is_told_what_a_completed_run_came_to(outcome: str, repo: Path) -> None:
    state = end(Outcome(Workspace(repo, "r1", "abc"), "d", outcome, "why"))
    assert state.is_completed()
    assert (state.name, state.message) == (outcome.capitalize(), "why")
