"""Before against after: the same rows where there are any, and never two test sets as one in silence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fuseline.comparison.difference import Delta, Difference, Labels, Setting, tell_difference
from fuseline.comparison.model import Model, read_model
from fuseline.errors import LineageError
from fuseline.evaluation.metrics import LOWER_IS_BETTER, Scored, estimate_gain
from fuseline.lineage.revisions import Revision
from fuseline.tasks.base import Task
from tests.comparison.conftest import LABELS, find_truth, name_target, problem, sure, write_model

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


def test_on_the_same_rows_the_gain_is_paired(kind: str, tmp_path: Path) -> None:
    before = made(tmp_path / "before", IDS, TRUE, BEFORE, kind=kind)
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER, kind=kind))
    task = problem(kind)
    truth = find_truth(task, [name_target(task, label) for label in TRUE])
    after, was = (Scored.of(task, sure(task, said), truth) for said in (AFTER, BEFORE))
    gains = estimate_gain(after, was, np.array([f"g{one}" for one in IDS]), 1000, 0.95)
    assert (found.rows, found.unpaired, found.headline) == (30, "", task.headline)
    assert set(found.metrics) == set(gains)
    for name, change in found.metrics.items():
        sign = -1 if name in LOWER_IS_BETTER else 1
        assert change.change == pytest.approx(sign * gains[name].value)
        ends = sorted([sign * gains[name].low, sign * gains[name].high])
        assert (change.low, change.high) == pytest.approx(tuple(ends))
    assert found.metrics[task.headline].change > 0.1
    assert found.better is not None
    assert found.worse is not None
    units = 2 if kind == "multilabel" else 1  # the label that it is not, and the one that it is
    assert (found.better.count, found.worse.count) == (9 * units, 1 * units)
    first = found.slices["half"]["first"]
    assert (first.before, first.after, first.rows) == (*(of_first(task, said) for said in (BEFORE, AFTER)), 15)
    assert found.classes["red"].rows == 10


def of_first(task: Task, said: list[int]) -> object:
    truth = find_truth(task, [name_target(task, label) for label in TRUE[:15]])
    return pytest.approx(task.score(sure(task, said[:15]), truth)[task.headline])


def test_rows_that_only_one_predicted_or_whose_label_was_corrected_are_left_out(kind: str, tmp_path: Path) -> None:
    ids = ["e0", "e1", "new", "e3", "e20"]
    true = [TRUE[0], TRUE[1], 0, WRONG[3], TRUE[20]]
    before = made(tmp_path / "before", IDS, TRUE, BEFORE, kind=kind)
    found = tell_difference(before, made(tmp_path / "after", ids, true, true, kind=kind))
    assert found.rows == 3  # e0, e1, e20
    assert found.better is not None
    assert {flip.id for flip in found.better.shown} == {"e0", "e1"}
    assert (found.before.test_rows, found.after.test_rows) == (30, 5)
    assert (found.data["test"].before, found.data["test"].after, found.data["test"].change) == (30, 5, -25)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("multilabel", '["red", "blue"]', '["blue","red"]'),
        ("ner", '[[0, 3, "red"], [4, 8, "blue"]]', '[[4,8,"blue"],[0,3,"red"]]'),
    ],
)
def test_labels_and_entities_in_another_order_are_the_same_truth(
    kind: str, one: str, other: str, tmp_path: Path
) -> None:
    before = made(tmp_path / "before", IDS, TRUE, BEFORE, kind=kind, targets={0: one, 1: one})
    changed = one.replace("blue", "green")
    after = made(tmp_path / "after", IDS, TRUE, AFTER, kind=kind, targets={0: other, 1: changed})
    assert tell_difference(before, after).rows == 29  # e1 was corrected


def test_another_kind_of_problem_is_shown_beside_without_a_change(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER, kind="ner"))
    assert found.unpaired == "they solve different problems (task classification, ner)"
    accuracy = found.metrics["accuracy"]
    assert (accuracy.before, accuracy.change) == (pytest.approx(20 / 30), None)
    assert accuracy.after is not None
    changes = [
        *found.metrics.values(),
        *found.classes.values(),
        *found.members.values(),
        *found.slices["half"].values(),
    ]
    assert len(changes) > 8
    assert {change.change for change in changes} == {None}
    assert found.bundle["bytes"].change == 0


def test_entities_by_another_scheme_are_not_paired(tmp_path: Path) -> None:
    before = made(tmp_path / "before", IDS, TRUE, BEFORE, kind="ner")
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER, kind="ner", scheme="bioes"))
    assert found.unpaired == "they solve different problems (scheme bio, bioes)"
    assert found.metrics["f1"].change == pytest.approx(8 / 30)


def test_labels_that_came_or_went_are_told(kind: str, tmp_path: Path) -> None:
    before = made(tmp_path / "before", IDS, [0, 1] * 15, [0, 1] * 15, kind=kind)
    labels = ["red", "green", "navy"]
    paired = tell_difference(before, made(tmp_path / "after", IDS, [0, 1] * 15, [0, 2] * 15, kind=kind, labels=labels))
    assert paired.labels == Labels(added=["navy"], removed=["blue"])
    assert paired.notes == ["labels: + navy, − blue; both are measured over those after"]
    assert (paired.rows, list(paired.classes)) == (30, labels)
    assert (paired.classes["green"].before, paired.classes["green"].after) == (1.0, 0.0)
    apart = tell_difference(before, made(tmp_path / "other", ["x"], [2], [2], kind=kind, labels=labels))
    assert apart.notes == ["labels: + navy, − blue; each is measured over its own"]
    assert apart.metrics["macro_f1"].after == 1.0
    assert tell_difference(before, before).notes == []


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


def test_the_system_is_the_one_that_was_exported_last_not_the_one_that_was_timed(before: Model, tmp_path: Path) -> None:
    after = made(tmp_path / "after", IDS, TRUE, TRUE, student=WRONG, system="student", timed="ensemble")
    found = tell_difference(before, after)
    assert found.after.system == "student"
    assert found.metrics["accuracy"].after == 0.0
    assert found.bundle["batch_1.p50_ms"].after is None  # that was the ensemble's
    (tmp_path / "after/build/export/metrics.json").unlink()  # as where only the published bundle is left
    assert read_model(tmp_path / "after", Revision("after", None)).system == "student"


def test_null_is_as_good_as_no_key(before: Model, tmp_path: Path) -> None:
    one = replace(before, params={"a": None, "b": None, "c": None, "d": 1})
    other = replace(before, params={"a": None, "c": 2, "d": None})
    assert tell_difference(one, other).params == {
        "c": Setting(before=None, after=2), "d": Setting(before=1, after=None),
    }  # fmt: skip


@pytest.mark.parametrize("column", ["probabilities", "target", "text", "label", "id", "group"])
def test_predictions_without_a_column_are_refused(column: str, tmp_path: Path) -> None:
    made(tmp_path / "one", IDS, TRUE, AFTER, kind="ner")
    path = tmp_path / "one/build/evaluate/predictions.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    why = rf"^build/evaluate/predictions.parquet of one: has no column {column}; expected id, .*`dvc repro`"
    with pytest.raises(LineageError, match=why):
        read_model(tmp_path / "one", Revision("one", None))


def test_damaged_predictions_are_refused(tmp_path: Path) -> None:
    made(tmp_path / "one", IDS, TRUE, AFTER)
    path = tmp_path / "one/build/evaluate/predictions.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LineageError, match=r"^build/evaluate/predictions.parquet of one: cannot be read as Parquet"):
        read_model(tmp_path / "one", Revision("one", None))


def test_predictions_for_other_labels_than_the_bundle_s_are_refused(kind: str, tmp_path: Path) -> None:
    made(tmp_path / "one", IDS, TRUE, AFTER, kind=kind)
    made(tmp_path / "two", IDS, TRUE, AFTER, kind=kind, labels=[*LABELS, "navy"])
    shutil.copy(*(tmp_path / each / "build/evaluate/predictions.parquet" for each in ("two", "one")))
    with pytest.raises(LineageError, match=r"holds probabilities of other labels"):
        read_model(tmp_path / "one", Revision("one", None))


def test_a_student_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match=r"evaluation.json of one has no numbers of the student"):
        made(tmp_path / "one", IDS, TRUE, AFTER, system="student")


def test_without_predictions_the_workspace_says_how_to_get_them(before: Model, tmp_path: Path) -> None:
    (tmp_path / "before/build/evaluate/predictions.parquet").unlink()
    found = tell_difference(read_model(tmp_path / "before", Revision("workspace", None)), before)
    assert found.unpaired == "workspace has no build/evaluate/predictions.parquet, which `dvc repro` makes"


def test_bundles_are_told_in_bytes_and_milliseconds(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER, size=1500, ms=1.0)).bundle
    assert found["bytes"] == Delta(before=1000, after=1500, change=500)
    assert found["batch_1.p50_ms"] == Delta(before=2.0, after=1.0, change=-1.0)


def test_the_document_is_read_back(before: Model, tmp_path: Path) -> None:
    found = tell_difference(before, made(tmp_path / "after", IDS, TRUE, AFTER))
    assert Difference.model_validate_json(found.model_dump_json()) == found
