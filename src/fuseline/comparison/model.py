"""A revision's model, as the files tell of it that its stages wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuseline.errors import FuselineError, LineageError
from fuseline.evaluation.predictions import COLUMNS, probabilities
from fuseline.lineage.revisions import Evidence, Revision, evidence_at
from fuseline.records import Benchmark, Bundle, ClassRow, Evaluation, Preparation, System
from fuseline.runtime.bundle import read_card, task_of
from fuseline.tasks.base import Floats, Task, Truth

STUDENT = ["student"]
"""Members of a bundle that holds one."""


@dataclass(frozen=True)
class Model:
    """What is known of it."""

    revision: Revision
    task: Task
    """The problem as the exported system answers it."""
    bundle: Bundle
    evaluation: Evaluation
    benchmark: Benchmark | None
    """None where it was not timed."""
    preparation: Preparation | None
    predictions: pa.Table | None
    """None where nothing is left but what was published."""
    params: Mapping[str, Any] | None
    data: str | None
    stale: Mapping[str, list[str]]

    @property
    def system(self) -> System:
        """Which system the bundle holds."""
        if self.benchmark is not None:
            return self.benchmark.system
        alone = self.evaluation.student is not None and self.bundle.members == STUDENT
        return "student" if alone else "ensemble"

    def take(self, rows: Sequence[int]) -> tuple[Floats, Truth]:
        """Return what the exported system said of some test rows [U, C], and what is true of them."""
        assert self.predictions is not None
        table = self.predictions.take(pa.array(rows, pa.int64()))
        targets, texts = (
            [] if name not in table.column_names else table[name].to_pylist() for name in ("target", "text")
        )
        truth = self.task.find_truth(table["label"].to_pylist(), targets, texts)
        return probabilities(table, self.system, self.task), truth

    def per_class(self) -> list[ClassRow]:
        """Return precision, recall and F1 by class on all its test rows; nothing where that is not known."""
        if self.predictions is not None:
            return self.task.table(*self.take(range(self.predictions.num_rows)))[0]
        return self.evaluation.per_class if self.system == "ensemble" else []

    def keys(self) -> list[tuple[str, str, str]]:
        """Return by what each test row is known again: its id, what is true of it, and where words count its text."""
        assert self.predictions is not None
        table = self.predictions
        if "target" in table.column_names:
            targets = table["target"].to_pylist()
        else:
            targets = [self.task.classes[label] for label in table["label"].to_pylist()]
        texts = table["text"].to_pylist() if self.task.words else [""] * len(targets)
        return list(zip(table["id"].to_pylist(), targets, texts, strict=True))

    def units(self, rows: Sequence[int]) -> list[int]:
        """Count the units of some test rows."""
        assert self.predictions is not None
        column, width = COLUMNS[self.system], len(self.task.classes)
        return [len(values) // width for values in self.predictions[column].to_numpy()[np.asarray(rows, int)]]


def read_model(repo: Path, revision: Revision) -> Model:
    """Bring and read what there is of a revision's model.

    Raises:
        LineageError: there is no model, it cannot be had, or another version of Fuseline wrote it.
    """
    with evidence_at(repo, revision) as evidence:
        try:
            return _read(revision, evidence)
        except FuselineError as error:
            raise LineageError(
                f"the model of {revision.name} cannot be read, as one that another Fuseline wrote: {error}"
            ) from error


def _read(revision: Revision, evidence: Evidence) -> Model:
    files = evidence.files
    bundle = read_card(files["bundle"])
    return Model(
        revision, task_of(bundle), bundle, Evaluation.read(files["evaluation"]),
        Benchmark.read(files["benchmark"]) if "benchmark" in files else None,
        Preparation.read(files["preparation"]) if "preparation" in files else None,
        pq.read_table(files["predictions"]) if "predictions" in files else None,
        evidence.params, evidence.data, evidence.stale,
    )  # fmt: skip
