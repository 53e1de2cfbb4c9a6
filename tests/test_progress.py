"""Progress lines are read back as they were printed."""

from __future__ import annotations

import pytest

from fuseline.progress import Progress, clock, parse


def test_the_last_line_is_always_printed_and_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("train text", 4, every_s=3600)
    for done in range(5):
        progress.at(done, f"step {done}/4")
    first, last = capsys.readouterr().err.splitlines()
    assert parse(first) == (0, "train text · step 0/4")
    assert parse(last) == (100, "train text · step 4/4 · 0:00 left")


@pytest.mark.parametrize("percent", [0, 7, 42, 100])
def test_every_percentage_is_read_back(percent: int, capsys: pytest.CaptureFixture[str]) -> None:
    Progress("export", 100, every_s=0).at(percent)
    parsed = parse(capsys.readouterr().err.rstrip("\n"))
    assert parsed is not None
    assert parsed[0] == percent
    assert parsed[1].startswith("export")


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("judge", 0).at(1)
    assert parse(capsys.readouterr().err.rstrip("\n")) is not None


@pytest.mark.parametrize("line", ["", "validate: 3 of 40 rows", "[ 34] x", "x [ 34%] y", "[1000%] x"])
def test_other_lines_are_not_progress(line: str) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3725, "62:05")])
def test_durations_are_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
