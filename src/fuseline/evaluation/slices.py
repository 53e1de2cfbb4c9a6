"""Cut the test rows into slices: by what is true of them, what they hold and where they came from.

Slices of one cut may overlap: a row of several labels is in as many. Shape letter: N rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fuseline.tasks.base import Task

Mask = NDArray[np.bool_]
Names = Sequence[Sequence[str]]
"""Of each row, the slices that it is in."""

COLUMN = "slice."
"""What columns of predictions.parquet begin with that hold the names of rows' slices."""
OTHER = "other"
NONE = "none"
LENGTHS = (16, 64, 256, 1024)
"""Characters from which a text is in the next slice: the same in all versions of a data set."""


def cut(
    by: str, task: Task, targets: Sequence[str], present: Mapping[str, Mask], texts: Sequence[str | None],
    sources: Sequence[str | None], metas: Sequence[str | None],
) -> Names:  # fmt: skip
    """Name the slices of each row.

    Args:
        by: as `evaluate.slices` has it.
        present: per modality which rows have it, in the order in which slices name them.
        metas: JSON objects.
    """
    if by == "label":
        return [task.labels_in(target) for target in targets]
    if by == "modalities":
        return [
            [" + ".join(name for name, has_N in present.items() if has_N[row]) or NONE] for row in range(len(targets))
        ]
    if by == "length":
        return [[name_length(text)] for text in texts]
    if by == "source":
        return [[source or NONE] for source in sources]
    column = by.removeprefix("meta.")
    return [[name_value(json.loads(meta or "{}").get(column))] for meta in metas]


def name_length(text: str | None) -> str:
    """Name the stretch that a text's length is in."""
    if text is None:
        return "no text"
    place = int(np.searchsorted(LENGTHS, len(text.strip()), side="right"))
    if not place:
        return f"under {LENGTHS[0]} characters"
    if place == len(LENGTHS):
        return f"{LENGTHS[-1]:,} characters or more"
    return f"{LENGTHS[place - 1]:,} to {LENGTHS[place] - 1:,} characters"


def name_value(value: Any) -> str:
    """Put a value of meta into a word."""
    if value is None or value == "":
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def limit(names: Names, most: int) -> Names:
    """Keep the names of the largest slices, of equals the first by name; call the rest OTHER."""
    counts = Counter(name for row in names for name in set(row))
    if len(counts) <= most:
        return names
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[: most - 1])
    return [sorted({name if name in kept else OTHER for name in row}) for row in names]


def masks(names: Names) -> dict[str, Mask]:
    """Return which rows are in each slice, by name."""
    found: dict[str, Mask] = {}
    for row, of_row in enumerate(names):
        for name in of_row:
            found.setdefault(name, np.zeros(len(names), bool))[row] = True
    return dict(sorted(found.items()))


def read(table: pa.Table) -> dict[str, dict[str, Mask]]:
    """Return the slices that predictions.parquet names, cut by cut."""
    columns = [name for name in table.column_names if name.startswith(COLUMN)]
    return {name.removeprefix(COLUMN): masks(table[name].to_pylist()) for name in columns}
