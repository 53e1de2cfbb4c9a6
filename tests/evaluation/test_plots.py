"""What `dvc plots` draws is what the evaluation says."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fuseline.evaluation import plots
from fuseline.evaluation.calibration import calibrate
from fuseline.evaluation.metrics import Scored
from fuseline.records import ClassRow, Epoch, History
from fuseline.tasks.base import Floats, Task, Truth
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner

TASKS: list[Task] = [Classification(list("abc")), MultiLabel(list("abc"), [0.3, 0.5, 0.9]), Ner(["A"], "bio")]


def draw(task: Task, rows: int = 60) -> tuple[Floats, Truth]:
    random = np.random.default_rng(1)
    texts = ["one two three"] * rows
    targets = [""] * rows
    if task.kind == "multilabel":
        labels = random.integers(2, size=(rows, 3)).tolist()
    elif task.kind == "ner":
        targets = ['[[0, 3, "A"]]'] * rows
        labels = [task.number(target, text) for target, text in zip(targets, texts, strict=True)]
    else:
        labels = random.integers(3, size=rows).tolist()
    truth = task.find_truth(labels, targets, texts)
    probs = random.dirichlet(np.ones(len(task.classes)), size=len(truth.labels_U))
    return probs, truth


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_the_bins_of_reliability_add_up_to_the_calibration_error(task: Task) -> None:
    probs, truth = draw(task)
    rows = plots.reliability(calibrate(probs, truth.labels_U))
    units = sum(row["units"] for row in rows)
    assert units == len(truth.labels_U)
    error = sum(row["units"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / units
    assert error == pytest.approx(task.score(probs, truth)["ece"], abs=1e-9)
    assert [row["confidence"] for row in rows] == sorted(row["calibrated"] for row in rows)


def test_a_confusion_matrix_is_counted_back_from_its_rows() -> None:
    rows = plots.confusion(["a", "b"], [[2, 0], [1, 3]])
    counts = Counter((row["actual"], row["predicted"]) for row in rows)
    assert counts == {("a", "a"): 2, ("b", "a"): 1, ("b", "b"): 3}
    assert plots.confusion(["a"], [[0]]) == []


def test_of_more_units_than_are_drawn_the_proportions_stay_and_no_cell_is_lost() -> None:
    rows = plots.confusion(["a", "b"], [[100_000, 1], [0, 50_000]], most=300)
    counts = Counter((row["actual"], row["predicted"]) for row in rows)
    assert counts == {("a", "a"): 200, ("a", "b"): 1, ("b", "b"): 100}


def test_classes_come_weakest_first() -> None:
    table = [ClassRow(label=name, precision=f1, recall=f1, f1=f1, support=1) for name, f1 in (("a", 0.9), ("b", 0.2))]
    assert [row["label"] for row in plots.classes(table)] == ["b", "a"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_system_is_written_with_the_numbers_of_its_task(task: Task, tmp_path: Path) -> None:
    probs, truth = draw(task)
    plots.write_system(tmp_path, "ensemble", Scored.of(task, probs, truth), calibrate(probs, truth.labels_U))
    with (tmp_path / "confusion/ensemble.csv").open(newline="") as file:
        counts = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(file))
    names, matrix = task.confusion(probs, truth)
    assert {pair: count for pair, count in counts.items() if count} == {
        (one, other): count
        for one, row in zip(names, matrix, strict=True) for other, count in zip(names, row, strict=True) if count
    }  # fmt: skip
    f1 = {row.label: row.f1 for row in task.table(probs, truth)[0]}
    assert {row["label"]: row["f1"] for row in json.loads((tmp_path / "classes/ensemble.json").read_text())} == f1


def test_each_member_has_its_learning_curve(tmp_path: Path) -> None:
    epoch = Epoch(epoch=1, train_loss=1.0, val_loss=2.0, val_score=0.5)
    for name in ("text", "image"):
        History(metric="accuracy", epochs=[epoch]).write(tmp_path / name / "history.json")
    plots.write_learning(tmp_path, [tmp_path / name / "history.json" for name in ("text", "image")])
    for name in ("text", "image"):
        assert json.loads((tmp_path / "learning" / f"{name}.json").read_text()) == [epoch.model_dump()]
