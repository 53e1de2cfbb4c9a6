"""What `dvc plots` draws: lists of flat records, in the form that its own templates expect."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fuseline.evaluation.metrics import Scored
from fuseline.records import Calibration, ClassRow, History, write_json

Rows = Sequence[Mapping[str, Any]]
MOST = 50_000
"""Rows of a confusion matrix: DVC's template counts them itself, in the browser."""


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], most: int = MOST) -> Rows:
    """List a confusion matrix as one row for each unit: actual, predicted.

    Of more than `most` units it lists as many in the same proportions, and each cell that is not empty at least once.
    """
    total = sum(map(sum, counts))
    share = min(1.0, most / total) if total else 1.0
    return [
        {"actual": actual, "predicted": predicted}
        for actual, of_actual in zip(names, counts, strict=True)
        for predicted, count in zip(names, of_actual, strict=True)
        for _ in range(max(1, round(count * share)) if count else 0)
    ]


def classes(table: Sequence[ClassRow]) -> Rows:
    """List the classes, the weakest first: label, precision, recall, f1, support."""
    return [row.model_dump() for row in sorted(table, key=lambda row: row.f1)]


def reliability(found: Calibration) -> Rows:
    """List the bins that the calibration error is summed over: confidence, accuracy, calibrated (what it should be)."""
    return [one.model_dump() | {"calibrated": one.confidence} for one in found.bins]


def learning(history: History) -> Rows:
    """List a member's epochs: epoch, train_loss, val_loss, val_score."""
    return [epoch.model_dump() for epoch in history.epochs]


def write_system(folder: Path, name: str, answered: Scored, calibration: Calibration) -> None:
    """Write confusion, classes and reliability of a system into folders of these names."""
    task, probs_UC, truth = answered.task, answered.probs_UC, answered.truth
    write_csv(
        folder / "confusion" / f"{name}.csv", ("actual", "predicted"), confusion(*task.confusion(probs_UC, truth))
    )
    write_json(folder / "classes" / f"{name}.json", classes(task.table(probs_UC, truth)[0]))
    write_json(folder / "reliability" / f"{name}.json", reliability(calibration))


def write_learning(folder: Path, histories: Iterable[Path]) -> None:
    """Write the learning curve of each member, whose folder holds its history, into the folder `learning`."""
    for path in histories:
        write_json(folder / "learning" / f"{path.parent.name}.json", learning(History.read(path)))


def write_csv(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Write rows as CSV with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
