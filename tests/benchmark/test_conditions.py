"""Contention is seen where there is some, and makes numbers invalid."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fuseline.benchmark import conditions
from fuseline.benchmark.conditions import Watch, clocks_mhz, versions, why_invalid
from fuseline.records import Contention

LINUX = pytest.mark.skipif(not conditions.PRESSURE.exists(), reason="this system does not tell of pressure")


def contention(pressure: float | None, delay: float | None) -> Contention:
    return Contention(seconds=1.0, cpu_seconds=1.0, cpu_pressure=pressure, queue_delay=delay)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (contention(0.05, 0.05), ""),
        (contention(None, None), "the system does not tell whether others wanted the processor"),
        (contention(None, 0.0), ""),
        (contention(0.06, 0.0), "some task waited for a processor in 6% of the time, more than 5%"),
        (contention(0.0, 0.5), "this process waited for one in 50% of the time, more than 5%"),
        (contention(0.2, 0.5), "some task waited for a processor in 20% of the time and this process waited for one"),
    ],
    ids=["five percent is not too much", "nothing is told", "half is told", "the machine", "the process", "both"],
)
def test_numbers_are_invalid_for(found: Contention, why: str) -> None:
    assert why_invalid(found).startswith(why)
    assert bool(why_invalid(found)) is bool(why)


@LINUX
def test_a_process_that_waits_for_a_processor_is_seen_to() -> None:
    spin = [sys.executable, "-c", "import os, time; os.sched_setaffinity(0, {CPU})\nwhile True: pass"]
    cpu, ours = min(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    spin[2] = spin[2].replace("CPU", str(cpu))
    others = [subprocess.Popen(spin) for _ in range(2)]
    try:
        os.sched_setaffinity(0, {cpu})
        time.sleep(0.5)
        watch, end = Watch(), time.perf_counter() + 1.0
        while time.perf_counter() < end:
            pass
        found = watch.read()
    finally:
        os.sched_setaffinity(0, ours)
        for other in others:
            other.kill()
            other.wait()
    assert found.queue_delay is not None
    assert found.queue_delay > 0.3  # of three that share it each waits two thirds of its time
    assert found.cpu_pressure is not None
    assert found.cpu_pressure > 0.3
    assert "more than 5%" in why_invalid(found)


def test_time_of_all_threads_is_counted() -> None:
    watch = Watch()
    threads = [threading.Thread(target=sum, args=(range(3_000_000),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = watch.read()
    assert found.cpu_seconds > 0
    assert found.seconds > 0


def test_where_the_system_tells_nothing_nothing_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESSURE", "TASKS", "CLOCKS"):
        monkeypatch.setattr(conditions, name, tmp_path / "none")
    found = Watch().read()
    assert found.cpu_pressure is found.queue_delay is None
    assert clocks_mhz() == {}


def test_clocks_are_read_in_megahertz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cpu0" / "cpufreq"
    folder.mkdir(parents=True)
    for name, khz in (("scaling_cur_freq", 2100000), ("scaling_max_freq", 3900000)):
        (folder / name).write_text(f"{khz}\n")
    monkeypatch.setattr(conditions, "CLOCKS", tmp_path)
    assert clocks_mhz() == {"now": 2100.0, "most": 3900.0}


def test_a_gpu_s_driver_and_clocks_are_what_its_tool_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in *driver*) echo 580.159.04;; *) echo "1980, 1980, [N/A]";; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(conditions, "CLOCKS", tmp_path / "none")
    assert versions()["driver"] == "580.159.04"
    assert clocks_mhz() == {"gpu now": 1980.0, "gpu most": 1980.0}


def test_memory_grows_with_what_is_held() -> None:
    code = (
        "from fuseline.benchmark.conditions import memory_bytes\n"
        "before = memory_bytes()\nheld = bytearray(b'x' * 50_000_000)\nprint(memory_bytes() - before)"
    )  # in a process of its own: this one may hold freed memory, which would be used again
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 40_000_000 < int(done.stdout) < 200_000_000
