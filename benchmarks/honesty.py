"""Part of the benchmark: does the benchmark itself tell the truth? The same bundle twice must not look like two.

Each trial loads one bundle twice and times both in turns, as `fuseline benchmark --beside` does; what is counted is how
often the median of the paired ratios is 5 % or more away from 1, beside the same by unpaired medians.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.spine import dvc
from fuseline.benchmark.candidate import Candidate
from fuseline.benchmark.conditions import Watch, why_invalid
from fuseline.benchmark.loops import take_turns
from fuseline.benchmark.percentiles import compare
from fuseline.config import Benchmark, load
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Row
from fuseline.runtime.rows import read_parquet

TRIALS, CALLS, WARMUP = 100, 40, 5
FALSE = 0.05
"""A difference that there is not."""


def measure_honesty(clone: Path) -> dict[str, Any]:
    """Set the bundle of the embedded data set against itself."""
    dvc(clone, "repro", "export")
    bundle, conditions = clone / "build/export/bundle", load(clone / "params.yaml").benchmark
    rows = list(read_parquet(clone / "build/prepare/test", read_bundle(bundle).modalities))
    return try_twice(bundle, rows, conditions)


def try_twice(
    bundle: Path, rows: Sequence[Row], conditions: Benchmark, trials: int = TRIALS, calls: int = CALLS
) -> dict[str, Any]:
    """Return, of trials of a bundle against itself, the share that show a false difference, at each batch size."""
    sides = {name: Candidate.open(bundle, conditions, rows[0]) for name in ("one", "the same")}
    found: dict[str, Any] = {"trials": trials, "calls": calls}
    for size in conditions.batch_sizes:
        outcomes = [_try(sides, rows, size, calls, seed) for seed in range(trials)]
        paired, unpaired, valid = (np.array(column) for column in zip(*outcomes, strict=True))
        found[f"batch_{size}"] = {
            "false_differences": float(np.mean(np.abs(paired - 1) >= FALSE)),
            "false_differences_unpaired": float(np.mean(np.abs(unpaired - 1) >= FALSE)),
            "largest": float(np.abs(paired - 1).max()),
            "valid_trials": int(valid.sum()),
            "false_differences_of_valid": float(np.mean(np.abs(paired[valid] - 1) >= FALSE)) if valid.any() else None,
        }
    return found


def _try(
    sides: dict[str, Candidate], rows: Sequence[Row], size: int, calls: int, seed: int
) -> tuple[float, float, bool]:
    def call(side: Candidate, turn: int) -> float:
        return side.call([rows[(turn * size + offset) % len(rows)] for offset in range(size)]).whole_ms

    watch = Watch()
    turns = {name: partial(call, side) for name, side in sides.items()}
    one, other = take_turns(turns, calls, WARMUP, seed).values()
    return compare(one, other).value, float(np.median(one) / np.median(other)), not why_invalid(watch.read())
