"""data/ and data.dvc move forward together, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fuseline.errors import DataError, LineageError
from fuseline.lineage import data as versions
from fuseline.lineage.dvc import DVC, data_digest, dvc, refuse_changed_data
from fuseline.lineage.git import git


@pytest.fixture
def project(repo: Path) -> Path:
    """Give a repository whose data/ is under DVC."""
    (repo / "data").mkdir()
    (repo / "data/one.txt").write_text("one")
    dvc(repo, "init", "--quiet")
    dvc(repo, "add", "--quiet", "data")
    return repo


def add_two(repo: Path) -> None:
    with versions.locked(repo), versions.next_version(repo) as folder:
        (folder / "two.txt").write_text("two")


def held(repo: Path) -> set[str]:
    return {path.name for path in (repo / "data").iterdir()}


def test_a_new_version_is_recorded_and_checked_out(project: Path) -> None:
    before = data_digest(project)
    add_two(project)
    assert data_digest(project) != before
    assert held(project) == {"one.txt", "two.txt"}
    refuse_changed_data(project)


def test_an_error_leaves_everything_as_it_was(project: Path) -> None:
    before = data_digest(project)

    def fail() -> None:
        with versions.locked(project), versions.next_version(project) as folder:
            (folder / "two.txt").write_text("two")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert (data_digest(project), held(project)) == (before, {"one.txt"})
    refuse_changed_data(project)


STEPS = [
    *(("touch", 1), ("replace", 1), ("rename", 1), ("rename", 2)),
    *((step, count) for step in ("rmtree", "unlink") for count in (1, 3, 4)),  # 1: before anything is done
]


def _killed(repo: Path, step: str, count: int) -> None:
    """Make a version, and be killed at the given call of a file operation."""
    calls = 0

    def trap(real: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return wrapped

    if step == "rmtree":
        versions.shutil.rmtree = trap(versions.shutil.rmtree)
    else:
        setattr(Path, step, trap(getattr(Path, step)))
    add_two(repo)


def _kill(repo: Path, step: str, count: int) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(repo, step, count))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize(("step", "count"), STEPS)
def test_a_kill_leaves_the_old_version_or_the_new_one(step: str, count: int, project: Path) -> None:
    before = data_digest(project)
    assert _kill(project, step, count) == -signal.SIGKILL
    versions.finish_swap(project)
    refuse_changed_data(project)
    assert held(project) == ({"one.txt"} if data_digest(project) == before else {"one.txt", "two.txt"})
    add_two(project)
    assert held(project) == {"one.txt", "two.txt"}


MOVES: dict[str, Callable[[Path], object]] = {
    "git checkout": lambda repo: git(repo, "checkout", "--quiet", "HEAD~1", "--", "data.dvc"),
    "git and dvc checkout": lambda repo: (MOVES["git checkout"](repo), MOVES["dvc checkout"](repo)),
    "dvc checkout": lambda repo: dvc(repo, "checkout", "--quiet", "--force", "data.dvc"),
    "data removed": lambda repo: shutil.rmtree(repo / "data", ignore_errors=True),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(("step", "count"), [("replace", 1), ("rename", 1), ("rename", 2), ("rmtree", 3)])
def test_whatever_is_checked_out_after_a_kill_the_next_command_goes_on_from_it(
    project: Path, move: str, step: str, count: int
) -> None:
    git(project, "add", "data.dvc")
    git(project, "commit", "--quiet", "-m", "One")
    with versions.locked(project), versions.next_version(project) as folder:
        (folder / "three.txt").write_text("three")
    git(project, "commit", "--quiet", "--all", "-m", "Three")
    assert _kill(project, step, count) == -signal.SIGKILL
    MOVES[move](project)
    chosen = data_digest(project)
    with versions.locked(project):
        assert data_digest(project) == chosen
        refuse_changed_data(project)
        assert ("three.txt" in held(project)) == (not move.startswith("git"))
    add_two(project)
    assert "two.txt" in held(project)
    refuse_changed_data(project)


def test_a_file_that_nobody_recorded_outlives_a_recovery(project: Path) -> None:
    _kill(project, "rename", 1)
    (project / "data/mine.txt").write_text("mine")
    with pytest.raises(LineageError):
        add_two(project)
    assert (project / "data/mine.txt").read_text() == "mine"
    (project / "data/mine.txt").unlink()
    add_two(project)
    assert held(project) == {"one.txt", "two.txt"}


def test_a_folder_that_is_not_under_dvc_is_not_replaced(repo: Path) -> None:
    dvc(repo, "init", "--quiet")
    (repo / "data").mkdir()
    (repo / "data/mine.txt").write_text("mine")
    with pytest.raises(LineageError, match="without data.dvc"):
        add_two(repo)
    assert held(repo) == {"mine.txt"}


def test_two_processes_do_not_change_the_data_at_once(project: Path) -> None:
    with versions.locked(project), pytest.raises(LineageError, match="being changed by another process"):
        add_two(project)
    add_two(project)


def test_what_a_stage_reads_is_not_changed_under_it(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {read: {cmd: sleep 60, deps: [data]}}\n")
    process = subprocess.Popen([*DVC, "repro", "--quiet"], cwd=project, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while '"read": {"' not in _text(project / ".dvc/tmp/rwlock"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = data_digest(project)
        with pytest.raises(LineageError, match=r"data is being read by `.*repro.*` \(process \d+\)"):
            add_two(project)
        assert (data_digest(project), held(project)) == (before, {"one.txt"})
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    add_two(project)
    assert held(project) == {"one.txt", "two.txt"}


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_snapshot_stays_as_it_was_while_versions_come(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, check_out, comes = data_digest(project), versions.check_out, iter([True])

    def come_between(repo: Path) -> Path:
        folder = check_out(repo)
        if next(comes, False):
            add_two(repo)
        return folder

    monkeypatch.setattr(versions, "check_out", come_between)
    with versions.snapshot(project) as (digest, folder):
        assert digest == data_digest(project) != before
        with versions.locked(project), versions.next_version(project) as newer:
            (newer / "one.txt").unlink()
        assert {path.name for path in folder.iterdir()} == {"one.txt", "two.txt"}
    assert not list((project / ".fuseline/data").glob("scratch-*"))


def test_a_snapshot_of_data_changed_by_hand_is_refused(project: Path) -> None:
    (project / "data/mine.txt").write_text("mine")
    with pytest.raises(LineageError, match=r"differs from data\.dvc"), versions.snapshot(project):
        pass


def test_scratch_folders_of_killed_processes_go_with_the_next_change_and_no_others(project: Path) -> None:
    def die() -> None:
        with versions.scratch(project) as folder:
            (folder / "batch").write_text("large")
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    with versions.scratch(project) as mine:
        add_two(project)
        assert list((project / ".fuseline/data").glob("scratch-*")) == [mine]
    assert not mine.exists()


def test_data_changed_by_hand_is_not_overwritten(project: Path) -> None:
    (project / "data/mine.txt").write_text("mine")
    with pytest.raises(LineageError, match="differs from data.dvc"):
        add_two(project)
    assert (project / "data/mine.txt").read_text() == "mine"


def test_new_data_leaves_the_embedded_remote_and_keeps_another(project: Path) -> None:
    for remote, kept in (("embedded", False), ("store", True)):
        document = yaml.safe_load((project / "data.dvc").read_text())
        document["outs"][0]["remote"] = remote
        (project / "data.dvc").write_text(yaml.safe_dump(document))
        with versions.locked(project), versions.next_version(project) as folder:
            (folder / f"{remote}.txt").write_text(remote)
        assert ("remote" in yaml.safe_load((project / "data.dvc").read_text())["outs"][0]) == kept


def test_errors_name_data_and_not_the_copy_that_is_worked_on(project: Path) -> None:
    def fail(folder: Path) -> None:
        raise DataError(f"{folder / 'one.txt'}: broken")

    told = rf"^{project / 'data'}/one\.txt: broken$"
    with pytest.raises(DataError, match=told), versions.next_version(project) as folder:
        fail(folder)
    with pytest.raises(DataError, match=told), versions.snapshot(project) as (_, folder):
        fail(folder)


def test_data_that_cannot_be_brought_back_says_why_and_what_to_do(project: Path) -> None:
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(LineageError, match=r"data cannot be made what data\.dvc names: .*git checkout"):
        versions.check_out(project)
