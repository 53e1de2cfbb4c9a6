"""One format for progress: printed by stages, read back by the flow, pleasant in a terminal."""

from __future__ import annotations

import re
import sys
import time

_LINE = re.compile(r"^\[ *(\d{1,3})%\] (.*)$")


class Progress:
    """Prints `[ 34%] what · detail · 0:42 left`, at most about once in `every_s` seconds."""

    def __init__(self, what: str, total: int, every_s: float = 2.0) -> None:
        self._what = what
        self._total = max(total, 1)
        self._every_s = every_s
        self._start = time.monotonic()
        self._next = self._start

    def at(self, done: int, detail: str = "") -> None:
        """Report that `done` of the total is done."""
        now = time.monotonic()
        if now < self._next and done < self._total:
            return
        self._next = now + self._every_s
        left_s = (now - self._start) * (self._total - done) / done if done else None
        parts = [self._what, detail, "" if left_s is None else f"{clock(left_s)} left"]
        say(f"[{100 * done // self._total:3d}%] {' · '.join(filter(None, parts))}")


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
