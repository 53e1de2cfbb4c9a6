"""Run commands: short ones to their end, long ones line by line in a process group that does not outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fuseline.errors import DISK_FULL, LineageError, is_disk_full

GRACE_S = 10


def lives(pid: int) -> bool:
    """Say whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def run(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed to stdout.

    Raises:
        LineageError: it failed; the message holds the end of its stderr.
    """
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **(env or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        told = [line for line in lines if line and not line.startswith("Having any troubles?")][-5:]
        full = f" ({DISK_FULL})" if is_disk_full(OSError(" ".join(told))) else ""
        raise LineageError(f"`{' '.join(command)}` failed in {cwd}: {' '.join(told)}{full}")
    return done.stdout


def stream(command: Sequence[str], cwd: Path, env: Mapping[str, str], on_line: Callable[[str], None]) -> list[str]:
    """Run a command in a process group of its own, line by line; return all lines.

    However this ends, by an error or by cancellation, the whole group is gone afterwards.

    Raises:
        LineageError: the command failed; the message holds what it said of it.
    """
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                on_line(lines[-1])
            process.wait()
        finally:
            _end_group(process)
    if process.returncode:
        raise LineageError(_reason(command, lines))
    return lines


def _end_group(process: subprocess.Popen[str]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue


def _reason(command: Sequence[str], lines: Sequence[str]) -> str:
    """Say what went wrong: the stage's own words where it has any, else the end of its output."""
    for index in reversed(range(len(lines))):
        line = lines[index]
        if line.startswith("error: "):
            ours = [line.removeprefix("error: ")]
            for more in lines[index + 1 :]:
                if not more.startswith("  "):
                    break
                ours.append(more)
            return "\n".join(ours)
    tail = "\n".join(lines[-15:])
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return f"{last}\n`{' '.join(command)}` failed:\n{tail}"


def python_env(source: Path) -> dict[str, str]:
    """Return the environment in which a clone at `source` runs its own code with our Python.

    An editable install points at the clone it was made in; PYTHONPATH goes before it.
    """
    here = str(Path(sys.executable).parent)
    return {
        "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
        "PYTHONPATH": str(source / "src"),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "FUSELINE_CACHE": os.environ.get("FUSELINE_CACHE") or str(_state_of(source) / "cache"),
        "TENSORBOARD_LOGGING_DIR": _absolute("TENSORBOARD_LOGGING_DIR") or str(_state_of(source) / "tensorboard"),
    }


def _absolute(variable: str) -> str | None:
    """Return a path that the environment gives, as it is from here: stages work in a clone that will be gone."""
    given = os.environ.get(variable)
    return str(Path(given).expanduser().absolute()) if given else None


def _state_of(source: Path) -> Path:
    """Return the .fuseline folder of a repository, or that of the one whose run a clone serves: runs share a cache."""
    return next((folder for folder in source.parents if folder.name == ".fuseline"), source / ".fuseline")
