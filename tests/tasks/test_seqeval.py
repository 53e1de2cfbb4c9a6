"""Metrics of entities are those of seqeval, to the last digits.

seqeval.json has drawn sequences of tags, sound by their scheme, and what seqeval 1.2.2 says of them:
`classification_report(true, predicted, mode="strict", scheme=IOB2 or IOBES, output_dict=True, zero_division=0)`. It is
no dependency, for it comes as sources only. Of sequences that are not sound the two differ on purpose: seqeval drops
what goes on with nothing, and a member's answer never has any.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.tasks.base import Floats, Truth
from fuseline.tasks.ner import Ner

CASES = json.loads(Path(__file__).with_name("seqeval.json").read_text())
LABELS = ["person", "place", "work"]
PARTS = ("precision", "recall", "f1", "support")


def read(case: dict[str, Any]) -> tuple[Ner, Floats, Truth]:
    """Return the task, probabilities whose best tags are the predicted ones, and what is true."""
    task = Ner(LABELS, case["scheme"])
    true, predicted = (
        [[task.tags.index(tag) for tag in row.split()] for row in case[name]] for name in ("true", "predicted")
    )
    flat = np.array([tag for row in predicted for tag in row])
    return task, np.where(np.eye(len(task.tags))[flat] > 0, 0.9, 0.1 / (len(task.tags) - 1)), task.assume_truth(true)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['scheme']}-{number % 6}" for number, case in enumerate(CASES)])
def test_precision_recall_and_f1_of_each_label_and_their_averages_are_seqeval_s(case: dict[str, Any]) -> None:
    task, probs_UC, truth = read(case)
    report = case["report"]
    rows, averages = task.table(probs_UC, truth)
    known = [row for row in rows if row.label in report]
    assert len(known) + 3 == len(report)
    if len(known) < len(LABELS):  # seqeval leaves out a label that neither occurs nor is predicted
        averages = [row for row in averages if row.label != "macro"]
    for row in [*known, *averages]:
        found = {part: getattr(row, part) for part in PARTS}
        assert found == pytest.approx(report[row.label], abs=1e-12, rel=0), row.label
    scores = task.score(probs_UC, truth)
    micro = {name: scores[name] for name in ("precision", "recall", "f1")}
    assert micro == pytest.approx({name: report["micro"][name] for name in micro}, abs=1e-12, rel=0)
    assert scores["macro_f1"] == pytest.approx(report["macro"]["f1"], abs=1e-12, rel=0)


def test_the_cases_are_of_both_schemes_and_no_trivial_ones() -> None:
    assert {case["scheme"] for case in CASES} == {"bio", "bioes"}
    assert len(CASES) == 12
    assert all(0.2 < case["report"]["micro"]["f1"] < 0.95 for case in CASES)
    assert any(len(case["report"]) < len(LABELS) + 3 for case in CASES)
