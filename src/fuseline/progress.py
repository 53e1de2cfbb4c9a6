"""One format for progress: printed by stages, read back by the flow, pleasant in a terminal."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress

_LINE = re.compile(r"^\[ *(\d{1,3})%\] (.*)$")


class Progress:
    """Prints `[ 34%] what · detail · 0:42 left`, at most about once in `every_s` seconds."""

    def __init__(self, what: str, total: int, every_s: float = 2.0) -> None:
        self._what = what
        self._total = max(total, 1)
        self._every_s = every_s
        self._next = time.monotonic()
        self._first: tuple[int, float] | None = None

    def at(self, done: int, detail: str = "") -> None:
        """Report that `done` of the total is done."""
        now = time.monotonic()
        if self._first is None:  # what comes before the first report is warm-up, and would spoil the estimate
            self._first = done, now
        if now < self._next and done < self._total:
            return
        self._next = now + self._every_s
        parts = [self._what, detail, self._time_left(done, now)]
        say(f"[{100 * done // self._total:3d}%] {' · '.join(filter(None, parts))}")

    def _time_left(self, done: int, now: float) -> str:
        assert self._first is not None
        steps, seconds = done - self._first[0], now - self._first[1]
        return f"{clock(seconds * (self._total - done) / steps)} left" if steps > 0 else ""


def parse(line: str) -> tuple[int, str] | None:
    """Return (percent, rest) of a progress line, or None for any other."""
    match = _LINE.match(line)
    return (int(match[1]), match[2]) if match else None


def clock(seconds: float) -> str:
    """Format a duration as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(line: str) -> None:
    """Print a line for the person who watches."""
    print(line, file=sys.stderr, flush=True)


def let_go_of_stdout() -> None:
    """Write what stdout still holds; where that fails, let it go nowhere.

    Python tries once more as it exits, and puts 120 in place of the exit code that it was to end with.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # it may be no file, as in a notebook
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
