"""Sides take turns, and a queue is counted from when a row was to arrive; by a clock that only the work moves."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.benchmark.loops import deal_arrivals, serve, take_turns


class Clock:
    """Stands still but for work and sleep."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds


def test_each_side_is_called_once_a_turn_and_what_it_says_while_warming_up_is_dropped() -> None:
    called: list[tuple[str, int]] = []
    sides = {name: lambda turn, name=name: called.append((name, turn)) or turn for name in "ab"}
    assert take_turns(sides, turns=3, warmup=2, seed=0) == {"a": [2, 3, 4], "b": [2, 3, 4]}
    assert [sorted(called[start : start + 2]) for start in range(0, 10, 2)] == [[("a", n), ("b", n)] for n in range(5)]


def test_the_order_within_a_turn_is_dealt_by_the_seed() -> None:
    def order(seed: int) -> list[str]:
        called: list[str] = []
        take_turns({name: lambda turn, name=name: called.append(name) for name in "abc"}, 20, 0, seed)
        return called

    assert order(0) == order(0) != order(1)
    assert {name: order(0)[::3].count(name) > 2 for name in "abc"} == dict.fromkeys("abc", True)


def test_a_pause_of_the_server_is_counted_for_every_row_that_was_to_arrive_meanwhile() -> None:
    clock, times = Clock(), iter([1.0, 0.001, 0.001, 0.001, 0.001])
    arrivals = [0.1, 0.2, 0.3, 0.4, 5.0]
    done = serve(lambda rows: clock.pass_by(next(times)), arrivals, 1, clock, clock.pass_by)
    assert done.latencies_ms == pytest.approx([1000, 901, 802, 703, 1], abs=0.01)  # and not 1000, 1, 1, 1, 1
    assert done.batches == [1] * 5


def test_rows_that_wait_are_answered_together_up_to_the_largest_batch() -> None:
    clock, taken = Clock(), []

    def answer(rows: range) -> None:
        taken.append(list(rows))
        clock.pass_by(1.0)

    done = serve(answer, [0.0, 0.1, 0.2, 0.3, 0.4, 9.0], 3, clock, clock.pass_by)
    assert taken == [[0], [1, 2, 3], [4], [5]]
    assert done.batches == [1, 3, 1, 1]
    assert done.seconds == pytest.approx(10.0)


def test_below_what_the_server_can_do_nobody_waits() -> None:
    clock = Clock()
    done = serve(lambda rows: clock.pass_by(0.5), [1.0, 2.0, 3.0], 8, clock, clock.pass_by)
    assert done.latencies_ms == pytest.approx([500] * 3)


def test_arrivals_are_a_poisson_process_of_the_rate_asked_for() -> None:
    arrivals = deal_arrivals(50.0, 20_000, seed=0)
    gaps = np.diff(arrivals)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # which only an exponential distribution of gaps gives
    assert np.bincount(np.array(arrivals, dtype=int))[:-1].var() == pytest.approx(50, rel=0.2)
    assert deal_arrivals(50.0, 5, 0) == arrivals[:5] != deal_arrivals(50.0, 5, 1)
