"""Percentiles by hand, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.benchmark.percentiles import compare, find_interval, summarize
from fuseline.records import P99_CALLS


def test_percentiles_are_interpolated_and_throughput_counts_examples() -> None:
    latency = summarize([float(ms) for ms in range(1, 402)], batch_size=4)  # 1 to 401 ms
    assert (latency.calls, latency.batch_size) == (401, 4)
    assert (latency.mean_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms) == (201.0, 201.0, 381.0, 397.0)
    assert latency.examples_per_second == pytest.approx(4 / 0.201)


def test_one_call_is_its_own_percentile_and_has_no_interval() -> None:
    latency = summarize([8.0], batch_size=2)
    assert latency.p50_ms == latency.p95_ms == latency.mean_ms == 8.0
    assert latency.examples_per_second == 250.0
    assert latency.intervals["p50"].low is latency.intervals["p50"].high is None


@pytest.mark.parametrize(("calls", "measured"), [(298, False), (299, True)])
def test_the_99th_percentile_takes_299_calls(calls: int, measured: bool) -> None:
    latency = summarize([float(ms) for ms in range(calls)], batch_size=1)
    assert P99_CALLS == 299
    assert (latency.p99_ms is not None) is measured
    assert ("p99" in latency.intervals) is measured


def test_an_interval_is_a_pair_of_calls_as_the_binomial_distribution_gives_it() -> None:
    found = find_interval([float(ms) for ms in range(1, 101)], 0.5, 0.95)
    assert (found.low, found.high) == (40.0, 61.0)  # Conover 1999: of 100 calls the 40th and the 61st


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_intervals_hold_the_true_percentile_as_often_as_they_say(share: float) -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        found = find_interval(random.exponential(size=150), share, 0.9)
        assert found.low is not None
        held += found.low <= -np.log(1 - share) <= (np.inf if found.high is None else found.high)
    assert held / 400 >= 0.88


def test_a_ratio_is_taken_turn_by_turn_so_that_what_slows_both_does_not_count() -> None:
    load = np.random.default_rng(1).uniform(1, 30, size=101)
    found = compare(list(3.0 * load), list(2.0 * load))
    assert found.value == found.interval.low == found.interval.high == pytest.approx(1.5)


def test_the_same_side_twice_shows_no_difference_of_5_percent_in_99_of_100_trials() -> None:
    random, false = np.random.default_rng(2), 0
    for _ in range(500):
        load = random.lognormal(sigma=0.4, size=100)  # of the machine, on both sides
        one, other = (list(load * random.lognormal(sigma=0.1, size=100)) for _ in range(2))
        false += abs(compare(one, other).value - 1) >= 0.05
    assert false <= 5
