"""Let the bundle answer golden rows in a clean environment that holds its own requirements alone."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pyarrow.parquet as pq

from fuseline.config import Params
from fuseline.evaluation.predictions import COLUMNS
from fuseline.inputs.image import COUNTS
from fuseline.progress import say
from fuseline.records import write_json
from fuseline.rehearsal.rehearse import rehearse
from fuseline.runtime.bundle import read_bundle, task_of
from fuseline.runtime.rows import read_parquet
from fuseline.stages import entry

ROWS = 2048
"""Test rows that golden ones are picked from: enough to differ, and few enough for the memory."""


def main(params: Params) -> None:
    """build/export, build/prepare, build/evaluate → build/rehearse: rehearsal and metrics .json."""
    bundle = read_bundle(entry.EXPORT / "bundle")
    task, several = task_of(bundle), COUNTS.name in bundle.inputs
    rows = islice(
        read_parquet(entry.PREPARE / "test", bundle.modalities, task.wanted(bundle.modalities), several), ROWS
    )
    column = COLUMNS[params.export.system]
    said = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=[column])[column][:ROWS].to_numpy()
    evaluated = [np.asarray(of_row).reshape(-1, len(task.classes)) for of_row in said]
    rehearsal = rehearse(entry.EXPORT / "bundle", rows, evaluated, params.rehearse.rows)
    folder = entry.fresh(entry.REHEARSE)
    rehearsal.write(folder / "rehearsal.json")
    numbers = ("agreement", "max_difference", "evaluation_agreement", "first_answer_seconds")
    write_json(folder / "metrics.json", {"rehearse": {name: getattr(rehearsal, name) for name in numbers}})
    say(
        f"rehearse: {rehearsal.problem}" if rehearsal.problem is not None
        else f"rehearse: {rehearsal.agreement:.1%} of {rehearsal.rows} golden rows answered as here, with "
        f"{len(rehearsal.installed)} packages installed; first answer after {rehearsal.first_answer_seconds:.1f} s"
    )  # fmt: skip


if __name__ == "__main__":
    entry.run(main)
