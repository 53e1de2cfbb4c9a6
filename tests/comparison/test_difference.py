"""Before against after: the same rows where there are any, and never two test sets as one in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fuseline.comparison.difference import Delta, Difference, tell_difference
from fuseline.comparison.model import Model, read_model
from fuseline.evaluation.metrics import Scored, estimate_gain
from fuseline.lineage.revisions import Revision
from fuseline.tasks.classification import Classification
from tests.comparison.conftest import LABELS, sure, write_model

IDS = [f"e{row}" for row in range(30)]
TRUE = [row % 3 for row in range(30)]
WRONG = [(label + 1) % 3 for label in TRUE]
BEFORE = WRONG[:10] + TRUE[10:]
AFTER = TRUE[:9] + WRONG[9:11] + TRUE[11:]


def made(folder: Path, *arguments: object, **options: object) -> Model:
    write_model(folder / "build", *arguments, **options)  # type: ignore[arg-type]
    return read_model(folder, Revision(folder.name, None))


@pytest.fixture
def before(tmp_path: Path) -> Model:
    return made(tmp_path / "before", IDS, TRUE, BEFORE)


def test_on_the_same_rows_the_gain_is_paired(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER))
    task = Classification(LABELS)
    after, was = (Scored.of(task, np.array(sure(said)), task.assume_truth(TRUE)) for said in (AFTER, BEFORE))
    gains = estimate_gain(after, was, np.array([f"g{one}" for one in IDS]), 1000, 0.95)
    assert (found.rows, found.unpaired) == (30, "")
    for name, change in found.metrics.items():
        sign = -1 if name in ("nll", "brier", "ece") else 1
        assert change.change == pytest.approx(sign * gains[name].value)
        ends = sorted([sign * gains[name].low, sign * gains[name].high])
        assert (change.low, change.high) == pytest.approx(tuple(ends))
    assert found.metrics["accuracy"].change == pytest.approx(8 / 30)
    assert found.better is not None
    assert found.worse is not None
    assert (found.better.count, found.worse.count) == (9, 1)
    first = found.slices["half"]["first"]
    assert (first.before, first.after, first.rows) == (pytest.approx(5 / 15), pytest.approx(13 / 15), 15)
    assert found.classes["red"].rows == 10


def test_rows_that_only_one_predicted_or_whose_label_was_corrected_are_left_out(before: Model, tmp_path: Path) -> None:
    ids = ["e0", "e1", "new", "e3", "e20"]
    true = [TRUE[0], TRUE[1], 0, WRONG[3], TRUE[20]]
    found = tell_difference(before, made(tmp_path / "after", ids, true, true))
    assert found.rows == 3  # e0, e1, e20
    assert (found.metrics["accuracy"].before, found.metrics["accuracy"].after) == (pytest.approx(1 / 3), 1.0)
    assert (found.before.test_rows, found.after.test_rows) == (30, 5)
    assert (found.data["test"].before, found.data["test"].after, found.data["test"].change) == (30, 5, -25)


def test_test_sets_without_a_common_row_are_not_paired_and_it_is_said(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", ["x", "y"], [0, 1], [0, 1]))
    assert found.rows is None
    assert found.unpaired == "their test sets share no rows"
    assert found.metrics["accuracy"] == Delta(before=20 / 30, after=1.0, change=1.0 - 20 / 30)
    assert found.better is None
    assert found.classes["blue"].after == 0.0
    assert found.slices["half"]["first"].low is None


def test_labels_in_another_order_are_compared_by_name(before: Model, tmp_path: Path) -> None:
    turned = [2, 0, 1]  # blue, red, green
    labels = [LABELS[number] for number in turned]
    place = [turned.index(label) for label in range(3)]
    after = made(tmp_path / "after", IDS, [place[one] for one in TRUE], [place[one] for one in BEFORE], labels=labels)
    found = tell_difference(before, after)
    assert found.rows == 30
    assert all(change.change == pytest.approx(0.0) for change in found.metrics.values())
    assert found.better is not None
    assert found.better.count == 0


def test_what_is_exported_is_compared_not_the_ensemble(before: Model, tmp_path: Path) -> None:
    after = made(tmp_path / "after", IDS, TRUE, TRUE, student=WRONG, system="student")
    found = tell_difference(before, after)
    assert (found.before.system, found.after.system) == ("ensemble", "student")
    assert found.metrics["accuracy"].after == 0.0
    apart = tell_difference(made(tmp_path / "other", ["x", "y"], [0, 1], [0, 1]), after)
    assert apart.metrics["accuracy"].after == 0.0
    assert apart.classes["red"].after == 0.0
    assert apart.slices["half"]["first"].after == 0.0


def test_bundles_are_told_in_bytes_and_milliseconds(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER, size=1500, ms=1.0)).bundle
    assert found["bytes"] == Delta(before=1000, after=1500, change=500)
    assert found["batch_1.p50_ms"] == Delta(before=2.0, after=1.0, change=-1.0)


def test_the_document_is_read_back(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER))
    assert Difference.model_validate_json(found.model_dump_json()) == found
