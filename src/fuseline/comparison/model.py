"""A revision's model, as the files tell of it that its stages wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.errors import FuselineError, LineageError
from fuseline.evaluation.predictions import COLUMNS, probabilities, truth_of
from fuseline.lineage.revisions import BUILT, Evidence, Revision, evidence_at
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
    system: System
    """Which one the bundle holds."""
    bundle: Bundle
    evaluation: Evaluation
    benchmark: Benchmark | None
    """None where the exported system was not timed."""
    preparation: Preparation | None
    predictions: pa.Table | None
    """None where nothing is left but what was published; of the workspace, where the file is not there."""
    params: Mapping[str, Any] | None
    data: str | None
    stale: Mapping[str, list[str]]
    unknown: str
    """Why nobody knows what is stale; empty where it is known."""

    def take(self, rows: Sequence[int]) -> tuple[Floats, Truth]:
        """Return what the exported system said of some test rows [U, C], and what is true of them."""
        assert self.predictions is not None
        table = self.predictions.take(pa.array(rows, pa.int64()))
        return probabilities(table, self.system, self.task), truth_of(table, self.task)

    def per_class(self) -> list[ClassRow]:
        """Return precision, recall and F1 by class on all its test rows; nothing where that is not known."""
        if self.predictions is not None:
            return self.task.table(*self.take(range(self.predictions.num_rows)))[0]
        return self.evaluation.per_class if self.system == "ensemble" else []

    def keys(self) -> list[tuple[str, str, str]]:
        """Return by what each test row is known again: its id, what is true of it, and where words count its text.

        Labels or entities of a row are a set: in which order a file lists them is of no account.
        """
        assert self.predictions is not None
        table = self.predictions
        if "target" in table.column_names:
            targets = [_in_order(target) for target in table["target"].to_pylist()]
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
        except LineageError:
            raise
        except FuselineError as error:
            raise LineageError(
                f"the model of {revision.name} cannot be read, as one that another Fuseline wrote: {error}"
            ) from error


def _read(revision: Revision, evidence: Evidence) -> Model:
    files = evidence.files
    bundle, evaluation = read_card(files["bundle"]), Evaluation.read(files["evaluation"])
    task, system = task_of(bundle), _find_system(files, bundle, evaluation)
    if system == "student" and evaluation.student is None:
        raise LineageError(
            f"{BUILT['evaluation'][1]} of {revision.name} has no numbers of the student, which its bundle holds: "
            "evaluate was run for other params than export; `dvc repro` runs both"
        )
    benchmark = Benchmark.read(files["benchmark"]) if "benchmark" in files else None
    return Model(
        revision, task, system, bundle, evaluation,
        benchmark if benchmark is not None and benchmark.system == system else None,
        Preparation.read(files["preparation"]) if "preparation" in files else None,
        _read_predictions(files["predictions"], revision, task, system) if "predictions" in files else None,
        evidence.params, evidence.data, evidence.stale, evidence.unknown,
    )  # fmt: skip


def _find_system(files: Mapping[str, Path], bundle: Bundle, evaluation: Evaluation) -> System:
    """Return what export recorded beside the bundle; the benchmark may be of an earlier one."""
    if "exported" in files and (told := _read_exported(files["exported"])) is not None:
        return told
    alone = evaluation.student is not None and bundle.members == STUDENT
    return "student" if alone else "ensemble"


def _read_exported(path: Path) -> System | None:
    """Return the system that export's metrics are of; None where they are older than its name in them."""
    try:
        told = json.loads(path.read_bytes()).get("exported", {}).get("system")
    except (ValueError, AttributeError) as error:
        raise LineageError(
            f"{path}: cannot be read; expected metrics of what is exported, as the export stage writes them: "
            "`dvc repro` makes it anew"
        ) from error
    return told if told in COLUMNS else None


def _read_predictions(path: Path, revision: Revision, task: Task, system: System) -> pa.Table:
    """Read what was predicted row by row.

    Raises:
        LineageError: it is no Parquet file, or has no column for what is compared.
    """
    several = task.unit != "row"
    needed = ["id", "group", "label", COLUMNS[system], *(("text", "target") if several else ())]
    try:
        table = pq.read_table(path)
        missing = [name for name in needed if name not in table.column_names]
        if not missing and _fits(table, system, task):
            return table
        found = f"has no column {', '.join(missing)}" if missing else "holds probabilities of other labels"
    except (pa.ArrowException, OSError) as error:
        found = f"cannot be read as Parquet ({' '.join(str(error).split())})"
    way = "`dvc repro` makes it anew" if revision.commit is None else "name another revision, or make it anew there"
    raise LineageError(
        f"{BUILT['predictions'][1]} of {revision.name}: {found}; expected {', '.join(needed)} of each test "
        f"row, as the evaluate stage writes them for the bundle's labels, {', '.join(task.labels)}: {way}"
    )


def _fits(table: pa.Table, system: System, task: Task) -> bool:
    """Tell whether each unit has a probability for each class."""
    widths = pc.list_value_length(table[COLUMNS[system]]).to_numpy()
    if task.words:
        units = pc.list_value_length(table["label"]).to_numpy()
    else:
        units = np.full(table.num_rows, len(task.labels) if task.unit == "label" else 1)
    return bool((widths == units * len(task.classes)).all())


def _in_order(target: str) -> str:
    """Put the labels or entities of a row's target in one order, each once."""
    return json.dumps(sorted({json.dumps(part, ensure_ascii=False) for part in json.loads(target)}))
