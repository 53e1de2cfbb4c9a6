"""How calls follow each other: MLPerf's single stream and offline (closed loop), and its server (open loop)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
REST_S = 0.002
"""Between two turns: threads of onnxruntime and OpenMP spin on after a call, and would take that from the next side."""


def take_turns(
    sides: Mapping[str, Callable[[int], T]], turns: int, warmup: int, seed: int,
    at: Callable[[int], None] = lambda turn: None,
) -> dict[str, list[T]]:  # fmt: skip
    """Call each side once a turn, in an order that chance deals anew; what a side says of its warm-up is dropped.

    Args:
        sides: what is given the turn's number, so that all work on the same rows in it.
        at: is told how many turns are done.
    """
    dealt, found = random.Random(seed), {name: [] for name in sides}  # type: random.Random, dict[str, list[T]]  # noqa: S311
    for turn in range(warmup + turns):
        for name in dealt.sample(list(sides), len(sides)):
            told = sides[name](turn)
            if turn >= warmup:
                found[name].append(told)
            if len(sides) > 1:
                time.sleep(REST_S)
        at(turn + 1)
    return found


class Served(NamedTuple):
    """What became of the rows of an open loop."""

    latencies_ms: list[float]
    """Of each row, from when it was to arrive: a queue that the server let grow is counted, for whoever waits in it."""
    batches: list[int]
    seconds: float


def deal_arrivals(rate: float, rows: int, seed: int) -> list[float]:
    """Return when rows arrive, seconds from the start: a Poisson process."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, rows)
    return [float(when) for when in gaps.cumsum()]


def serve(
    answer: Callable[[range], object], arrivals: Sequence[float], largest_batch: int,
    clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep,
) -> Served:  # fmt: skip
    """Answer rows as they arrive, one worker, all that wait at once up to the largest batch.

    The schedule does not wait for the worker, so no thread is needed to keep it, and none disturbs what is measured.

    Args:
        answer: answers the rows of these numbers.
        arrivals: in order, seconds from now.
    """
    latencies_ms: list[float] = []
    batches, start, done = [], clock(), 0
    while done < len(arrivals):
        now = clock() - start
        if arrivals[done] > now:
            sleep(arrivals[done] - now)
            now = max(arrivals[done], clock() - start)
        waiting = int(np.searchsorted(arrivals, now, side="right")) - done
        taken = range(done, done + min(waiting, largest_batch))
        answer(taken)
        finished = clock() - start
        latencies_ms += [1000 * (finished - arrivals[row]) for row in taken]
        batches.append(len(taken))
        done = taken.stop
    return Served(latencies_ms, batches, clock() - start)
