"""The cache gives what was made, whatever befalls its files, and stays within its bounds."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuseline import cache
from fuseline.errors import ConfigError
from fuseline.records import base


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Writes a text, and counts how often it was asked to."""

    def __init__(self, content: str = "dear") -> None:
        self.content, self.calls = content, 0

    def __call__(self, path: Path) -> None:
        self.calls += 1
        path.write_text(self.content)


def test_what_was_made_is_made_once(folder: Path) -> None:
    make = Maker()
    first, again = (cache.fetch("things", ["a", "b"], make) for _ in range(2))
    assert first == again
    assert first.read_text() == "dear"
    assert make.calls == 1
    assert list(folder.rglob("*.part")) == []


@pytest.mark.parametrize("other", [["a", "c"], ["a"], ["a", "b", "c"]])
def test_something_else_is_made_of_something_else(other: list[str], folder: Path) -> None:
    make = Maker()
    assert cache.fetch("things", ["a", "b"], make) != cache.fetch("things", other, make)
    assert make.calls == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def flip_unnoticed(path: Path) -> None:
    """Damage a file without a change of its size or time."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    base._digest.cache_clear()  # as in another process


@pytest.mark.parametrize("damage", [cut, empty, flip, flip_unnoticed, Path.unlink], ids=lambda one: one.__name__)
def test_a_damaged_file_is_noticed_and_made_again(damage: Callable[[Path], None], folder: Path) -> None:
    make = Maker()
    damage(cache.fetch("things", ["a"], make))
    assert cache.fetch("things", ["a"], make).read_text() == "dear"
    assert make.calls == 2
    assert len(list(folder.rglob("*-*"))) == 1


def test_what_fails_leaves_nothing_behind(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        cache.fetch("things", ["a"], fail)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def slowly(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(20):
            file.write(b"x" * 1000)
            file.flush()
            time.sleep(0.005)


def fetch_slowly(_: int) -> int:
    return len(cache.fetch("things", ["slow"], slowly).read_bytes())


def test_processes_that_make_the_same_at_once_all_get_it_whole(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(fetch_slowly, range(8)) == [20_000] * 8
    assert len(list(folder.rglob("*-*"))) == 1


def age(folder: Path, seconds: int) -> None:
    for path in folder.rglob("*-*"):
        found = path.stat()
        os.utime(path, (found.st_atime - seconds, found.st_mtime))


def test_the_files_that_were_not_used_for_longest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_CACHE_GB", "3.5e-7")  # 350 bytes
    make = Maker("x" * 100)
    for name in ("a", "b", "c", "a", "d"):
        cache.fetch("things", [name], make)
        age(folder, 100)
    assert make.calls == 4
    cache.fetch("things", ["a"], make)
    cache.fetch("things", ["c"], make)
    assert make.calls == 4
    cache.fetch("things", ["b"], make)
    assert make.calls == 5
    assert sum(path.stat().st_size for path in folder.rglob("*-*")) == 300


def test_a_file_that_was_just_used_stays_whatever_the_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_CACHE_GB", "0")
    first, second = (cache.fetch("things", [name], Maker()) for name in "ab")
    assert first.exists()
    assert second.read_text() == "dear"
    age(folder, 100)
    cache.fetch("things", ["c"], Maker())
    assert not first.exists()
    assert not second.exists()


def test_what_killed_runs_left_is_removed_and_what_others_write_is_not(folder: Path) -> None:
    (folder / "things").mkdir(parents=True)
    old, new = folder / "things" / "old.part", folder / "things" / "new.part"
    old.write_text("half")
    new.write_text("half")
    os.utime(old, (0, 0))
    cache.fetch("things", ["a"], Maker())
    assert not old.exists()
    assert new.exists()


def test_a_bound_that_is_no_number_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_CACHE_GB", "20 GB")
    with pytest.raises(
        ConfigError, match="FUSELINE_CACHE_GB: expected a number of gigabytes such as 20, found '20 GB'"
    ):
        cache.fetch("things", ["a"], Maker())


def test_it_stands_at_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSELINE_CACHE")
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo" / "a" / "b")
    assert cache.find_folder() == tmp_path / "repo" / ".fuseline" / "cache"


def test_code_is_another_after_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.fuseline, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "one.py").write_text("a = 1")
    (tmp_path / "two.py").write_text("b = 1")
    before = cache.code_of("one", "two")
    assert cache.code_of("one", "two") == before
    (tmp_path / "two.py").write_text("b = 2")
    assert cache.code_of("one", "two") != before
