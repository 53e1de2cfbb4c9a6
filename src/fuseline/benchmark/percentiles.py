"""Times to percentiles with intervals that assume no distribution; two sides' times to the median of paired ratios.

Intervals are pairs of order statistics (Conover 1999, 3.2); they hold where calls do not depend on each other, which a
contended machine breaks: see `contention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import quantile_test

from fuseline.records import P99_CALLS, Interval, Latency, Ratio


def find_interval(times: Sequence[float], share: float, confidence: float) -> Interval:
    """Return the order statistics that hold the quantile of this share; None on a side that no call lies beyond."""
    found = quantile_test(times, q=0, p=share).confidence_interval(confidence_level=confidence)
    low, high = (None if math.isnan(bound) else float(bound) for bound in (found.low, found.high))
    return Interval(low=low, high=high)


def find_intervals(times_ms: Sequence[float], confidence: float) -> dict[str, Interval]:
    """Return the intervals of p50 and p95, and of p99 where there are calls enough for one."""
    shares = {"p50": 0.5, "p95": 0.95} | ({"p99": 0.99} if len(times_ms) >= P99_CALLS else {})
    return {name: find_interval(times_ms, share, confidence) for name, share in shares.items()}


def find_p99(times_ms: Sequence[float]) -> float | None:
    """Return the 99th percentile, None from too few calls."""
    return float(np.percentile(times_ms, 99)) if len(times_ms) >= P99_CALLS else None


def summarize(times_ms: Sequence[float], batch_size: int, confidence: float = 0.95) -> Latency:
    """Reduce call times to percentiles (linear interpolation) and throughput."""
    p50, p95 = np.percentile(times_ms, [50, 95])
    return Latency(
        batch_size=batch_size,
        calls=len(times_ms),
        mean_ms=float(np.mean(times_ms)),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=find_p99(times_ms),
        examples_per_second=1000 * batch_size * len(times_ms) / float(np.sum(times_ms)),
        intervals=find_intervals(times_ms, confidence),
    )


def compare(base_ms: Sequence[float], other_ms: Sequence[float], confidence: float = 0.95) -> Ratio:
    """Return how many times as fast the other is, turn by turn on the same rows: the median, above 1 where faster."""
    ratios = np.array(base_ms) / np.array(other_ms)
    return Ratio(value=float(np.median(ratios)), interval=find_interval(ratios, 0.5, confidence))
