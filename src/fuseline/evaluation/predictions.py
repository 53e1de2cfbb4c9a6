"""What predictions.parquet holds of the systems, row by row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fuseline.records import System
from fuseline.tasks.base import Floats, Task, Truth

COLUMNS: dict[System, str] = {"ensemble": "probabilities", "student": "student"}


def probabilities(table: pa.Table, system: System, task: Task) -> Floats:
    """Return what a system said of the units of the rows, one after the other [U, C]."""
    rows = table[COLUMNS[system]].to_numpy()
    return np.concatenate(rows).reshape(-1, len(task.classes)) if len(rows) else np.zeros((0, len(task.classes)))


def truth_of(table: pa.Table, task: Task) -> Truth:
    """Return what is true of the rows."""
    targets, texts = ([] if name not in table.column_names else table[name].to_pylist() for name in ("target", "text"))
    return task.find_truth(table["label"].to_pylist(), targets, texts)
