"""The whole line where a row may have several labels: from data to a bundle that answers with them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fuseline import config
from fuseline.cli import app
from fuseline.data.shards import SCHEMA
from fuseline.judge import compare
from fuseline.records import Combination, Evaluation, Parity, Preparation
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.tasks.multilabel import MultiLabel
from tests.conftest import COLORS, LABELS, WORDS, paint, run_readme
from tests.stages.conftest import run, whole_line

pytestmark = pytest.mark.slow
METRICS = {"map", "f1", "precision", "recall", "macro_f1", "accuracy", "nll", "brier", "ece"}


def example(number: int) -> dict[str, Any]:
    """Make a text with a word for each of none to three labels, and a picture in the colour of the first."""
    given = [label for bit, label in enumerate(LABELS) if number % 8 >> bit & 1]
    words = [WORDS[label][(number // 8) % 3] for label in given]
    return {
        "id": f"e{number}", "group": f"g{number}", "text": f"{' and '.join(words)} the{' s' * (number // 8)}",
        "image": {"bytes": paint(COLORS[given[0]]), "path": None} if given and number % 4 else None,
        "target": json.dumps(given), "meta": None, "source": "made up",
    }  # fmt: skip


@pytest.fixture(scope="module")
def several(document: dict[str, Any]) -> dict[str, Any]:
    """Give params for several labels."""
    found = copy.deepcopy(document)
    found["task"] = {"kind": "multilabel", "labels": LABELS, "thresholds": {"shrink": 2.0}}
    found["validate"]["max_text_chars"] = 200
    found["prepare"]["duplicates"]["text_similarity"] = 1.0
    found["encoders"]["text"]["max_length"] = 24
    found["members"]["experts"]["text"] |= {"epochs": 20, "dropout": 0.0}
    return found


@pytest.fixture(scope="module")
def line(several: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the whole line."""
    rows = pa.Table.from_pylist([example(number) for number in range(96)], schema=SCHEMA)
    with whole_line(tmp_path_factory.mktemp("line"), several, rows) as folder:
        yield folder


def test_the_line_learns_labels_and_measures_them(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    preparation = Preparation.read(line / "build/prepare/preparation.json")
    assert evaluation.headline == "map"
    assert set(evaluation.ensemble) == METRICS
    assert evaluation.members["text"]["map"].value > 0.9
    assert evaluation.members["text"]["f1"].value > 0.8
    assert set(evaluation.patterns) == {"text", "image"}
    assert evaluation.student is not None
    assert set(evaluation.student) == METRICS
    assert [row.label for row in evaluation.per_class] == LABELS
    assert {row.label: row.support for row in evaluation.per_class} == preparation.labels["test"]
    assert evaluation.averages[0].f1 == pytest.approx(evaluation.ensemble["f1"].value)
    assert evaluation.labels == [*LABELS, "no label"]


def test_thresholds_are_fitted_for_the_ensemble_and_for_each_member(line: Path, several: dict[str, Any]) -> None:
    combination = Combination.read(line / "build/combine/combination.json")
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    cuts = {name: one.thresholds for name, one in combination.decodings.items()}
    assert {name: len(each) for name, each in cuts.items()} == {"fusion": 3, "image": 3, "text": 3}
    assert len({tuple(each) for each in cuts.values()}) == 3
    assert read_bundle(line / "build/export/bundle").thresholds == combination.decoding.thresholds
    files = sorted((line / "build/prepare/test").glob("*.parquet"))
    labels = [row for file in files for row in pq.read_table(file)["label"].to_pylist()]
    table = pq.read_table(line / "build/evaluate/predictions.parquet")
    probs = np.concatenate(table["probabilities"].to_numpy()).reshape(-1, 2)
    task = MultiLabel(LABELS, combination.decoding.thresholds)
    found = task.score(probs, task.assume_truth(labels))
    assert found == pytest.approx({name: one.value for name, one in evaluation.ensemble.items()})


def test_without_thresholds_a_half_decides(
    line: Path, several: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    for place in ("build/prepare", "build/train"):
        (tmp_path / place).symlink_to(line / place)
    found = []
    for thresholds in (None, {"shrink": 2.0}, {"shrink": 1e9}):
        run(several | {"task": several["task"] | {"thresholds": thresholds}}, "combine")
        found.append(Combination.read(Path("build/combine/combination.json")))
    assert found[0].decoding.thresholds == []
    assert found[1] == Combination.read(line / "build/combine/combination.json")
    assert found[2].decoding.thresholds == pytest.approx([found[2].decoding.thresholds[0]] * 3)
    assert found[1].decoding.thresholds != found[2].decoding.thresholds


def test_the_bundle_says_what_was_evaluated(line: Path) -> None:
    parity = Parity.read(line / "build/export/parity.json")
    bundle = read_bundle(line / "build/export/bundle")
    assert parity.rows % 3 == 0
    assert parity.max_logit_difference < 1e-3
    assert (parity.argmax_agreement, parity.evaluation_agreement) == (1.0, 1.0)
    assert (bundle.format, bundle.task) == (3, "multilabel")
    assert bundle.outputs["probabilities"].startswith("float32 [batch, labels, classes]")


def test_predict_answers_with_labels_and_so_does_the_readme(line: Path, tmp_path: Path) -> None:
    text = f"{WORDS['red'][0]} and {WORDS['blue'][0]} the s s"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": 7, "text": text}) + "\n")
    bundle = line / "build/export/bundle"
    done = CliRunner().invoke(app, ["predict", str(bundle), "--input", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert set(answer["labels"]) == {"red", "blue"}
    assert set(answer["probabilities"]) == set(LABELS)
    told = dict(line.split() for line in run_readme(bundle, tmp_path, TEXT=repr(text)).splitlines())
    assert {label: round(float(p), 4) for label, p in told.items()} == {
        label: round(answer["probabilities"][label], 4) for label in answer["labels"]
    }


def test_answers_do_not_depend_on_the_rows_beside_them(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", ["CPUExecutionProvider"], 1)
    rows = [Row("rose", paint(COLORS["red"])), Row("sea and sky and leaf and frog"), Row(None, paint())]
    together, apart = (list(predictor.answer(rows, size)) for size in (3, 1))
    assert [one.probabilities.shape for one in together] == [(3, 2)] * 3
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_champion_with_its_labels_in_another_order_is_neither_better_nor_worse(
    line: Path, several: dict[str, Any]
) -> None:
    settings = config.Evaluate.model_validate(several["evaluate"])
    comparison = compare("v1.0.0", line / "build/export/bundle", line, settings)
    assert comparison.against is not None
    assert {name: gain.value for name, gain in comparison.against.overall.gain.items()} == dict.fromkeys(METRICS, 0.0)
    ours, theirs = MultiLabel(["a", "b", "d"], [0.2, 0.7, 0.9]), MultiLabel(["c", "b", "a"], [0.1, 0.6, 0.3])
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    task, found = ours.adopt(theirs, probs)
    assert task.thresholds == [0.3, 0.6, 0.5]
    assert found.tolist() == [[0.7, 0.3], [0.8, 0.2], [1.0, 0.0]]


def test_weights_of_labels_count(
    line: Path, several: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/prepare").symlink_to(line / "build/prepare")
    document, made = copy.deepcopy(several), set()
    document["members"]["experts"].pop("image")
    for weights in (None, "balanced", {"red": 5.0, "green": 1.0, "blue": 1.0}):
        document["members"]["experts"]["text"] |= {"class_weights": weights, "epochs": 1}
        run(document | {"members": document["members"] | {"fusions": {}}, "distill": None, "pretrain": None}, "train")
        made.add(hashlib.sha256(Path("build/train/experts/text/model.safetensors").read_bytes()).hexdigest())
    assert len(made) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda task: task.update(kind="classification"), "thresholds: classification takes none"),
        (lambda task: task.update(labels=[]), "multilabel takes 1 or more"),
        (lambda task: task.update(thresholds={"shrink": -1.0}), "shrink"),
    ],
    ids=["kind", "labels", "shrink"],
)
def test_params_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], object], words: str, several: dict[str, Any]
) -> None:
    document = copy.deepcopy(several)
    change(document["task"])
    with pytest.raises(ValueError, match=words):
        config.Params.model_validate(document)
