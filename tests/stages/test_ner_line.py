"""The whole line on entities: from data to a bundle that answers with them."""

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
from fuseline.errors import BundleError
from fuseline.judge import compare
from fuseline.records import Benchmark, Combination, Evaluation, Parity, Transitions
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.tasks.ner import Ner
from tests.conftest import COLORS, LABELS, WORDS, paint, run_readme
from tests.stages.conftest import run, whole_line

pytestmark = pytest.mark.slow
METRICS = {"f1", "precision", "recall", "macro_f1", "accuracy", "nll", "brier", "ece"}


def example(number: int) -> dict[str, Any]:
    """Make a text of one to three entities of one or two words; every fourth row lacks its picture."""
    text, spans = "the", []
    for label in [LABELS[(number + step) % 3] for step in range(1 + number % 3)]:
        words = WORDS[label]
        entity = f"{words[number % 3]} {words[(number + 1) % 3]}" if number % 2 else words[number % 3]
        spans.append([len(text) + 1, len(text) + 1 + len(entity), label])
        text += f" {entity} and the"
    return {
        "id": f"e{number}", "group": f"g{number}", "text": f"{text}{' s' * (number // 18)}",
        "image": None if number % 4 == 3 else {"bytes": paint(COLORS[LABELS[number % 3]]), "path": None},
        "target": json.dumps(spans), "meta": None, "source": "made up",
    }  # fmt: skip


@pytest.fixture(scope="module")
def tagging(document: dict[str, Any]) -> dict[str, Any]:
    """Give params for entities: an expert on text, and a fusion of it with pictures."""
    found = copy.deepcopy(document)
    found["task"] = {"kind": "ner", "scheme": "bio", "labels": LABELS}
    found["validate"]["max_text_chars"] = 200
    found["prepare"]["duplicates"]["text_similarity"] = 1.0
    found["encoders"]["text"]["max_length"] = 14
    found["members"]["experts"].pop("image")
    for member in (found["members"]["experts"]["text"], found["members"]["fusions"]["fusion"]):
        member |= {"epochs": 12, "dropout": 0.0}
    found["members"]["fusions"]["fusion"] |= {"start": {"text": "text"}, "epochs": 2}
    found["distill"]["student"] |= {"start": {"text": "text"}}
    found["pretrain"] = None
    return found


@pytest.fixture(scope="module")
def line(tagging: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the whole line."""
    rows = pa.Table.from_pylist([example(number) for number in range(90)], schema=SCHEMA)
    with whole_line(tmp_path_factory.mktemp("line"), tagging, rows) as folder:
        yield folder


def test_the_line_learns_entities_and_measures_them(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    assert evaluation.headline == "f1"
    assert set(evaluation.ensemble) == METRICS
    assert evaluation.members["text"]["f1"].value > 0.7
    assert evaluation.best_single == "text"
    assert evaluation.fine_tuning_gain["text"]["f1"].value > 0
    changes = evaluation.tuning["text"].classes
    assert {label: change.rows for label, change in changes.items()} == {
        row.label: row.support for row in evaluation.per_class
    }
    assert sum(change.after - change.before for change in changes.values()) > 0
    assert sum(each.units for each in evaluation.calibration["ensemble"].bins) == len(words_of(line, "label"))
    assert set(evaluation.patterns) == {"text"}
    assert [row.label for row in evaluation.per_class] == LABELS
    assert [row.label for row in evaluation.averages] == ["micro", "macro", "weighted"]
    assert evaluation.averages[0].f1 == pytest.approx(evaluation.ensemble["f1"].value)
    assert sum(map(sum, evaluation.confusion)) == len(words_of(line, "label"))


def words_of(line: Path, name: str) -> list[Any]:
    """Return a column of the test rows, lists of words joined."""
    files = sorted((line / "build/prepare/test").glob("*.parquet"))
    return [item for file in files for row in pq.read_table(file)[name].to_pylist() for item in row]


def test_words_that_were_cut_off_are_counted_and_lie_outside(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    predictor = Predictor(line / "build/export/bundle", ["CPUExecutionProvider"], 1)
    (answer,) = predictor.answer([Row("the rose " * 10)])
    assert answer.probabilities.shape == (20, 7)
    assert np.ptp(answer.probabilities[12:], axis=1).max() == 0  # fourteen tokens, two of them special
    assert max(one["end"] for one in predictor.task.answer("the rose " * 10, answer.probabilities)["entities"]) <= 54
    assert evaluation.unseen > 0


def test_the_bundle_says_what_was_evaluated(line: Path) -> None:
    parity = Parity.read(line / "build/export/parity.json")
    assert parity.rows == len(words_of(line, "label"))
    assert parity.max_logit_difference < 1e-3
    assert (parity.argmax_agreement, parity.evaluation_agreement) == (1.0, 1.0)
    assert Benchmark.read(line / "build/benchmark/benchmark.json").batches["batch_2"].calls == 2
    bundle = read_bundle(line / "build/export/bundle")
    assert (bundle.format, bundle.scheme, len(bundle.tags)) == (2, "bio", 7)
    assert "words" in bundle.inputs
    assert "words.json" in bundle.files


def test_predict_answers_with_entities_and_so_does_the_readme(line: Path, tmp_path: Path) -> None:
    text = "the rose cherry and the sea and the"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": 7, "text": text}) + "\n")
    bundle = line / "build/export/bundle"
    done = CliRunner().invoke(app, ["predict", str(bundle), "--input", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["id"] == 7
    found = [(one["label"], one["text"]) for one in answer["entities"]]
    assert found == [("red", "rose cherry"), ("blue", "sea")]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in answer["entities"])
    assert all(0 < one["score"] <= 1 for one in answer["entities"])
    said = [line.split(maxsplit=3) for line in run_readme(bundle, tmp_path, TEXT=repr(text)).splitlines()]
    told = [[str(one["start"]), str(one["end"]), one["label"], repr(one["text"])] for one in answer["entities"]]
    assert said == told


def test_answers_do_not_depend_on_the_rows_beside_them(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", ["CPUExecutionProvider"], 1)
    rows = [Row("the rose", paint(COLORS["red"])), Row("sea and sky and leaf and frog"), Row("\u200b the")]
    together, apart = (list(predictor.answer(rows, size)) for size in (3, 1))
    assert [one.probabilities.shape[0] for one in together] == [2, 7, 1]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_row_without_text_is_refused(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", ["CPUExecutionProvider"], 1)
    with pytest.raises(BundleError, match="a row has none of text"):
        list(predictor.answer([Row(None, paint())]))


def test_a_champion_that_answers_alike_is_neither_better_nor_worse(line: Path, tagging: dict[str, Any]) -> None:
    settings = config.Evaluate.model_validate(tagging["evaluate"])
    comparison = compare("v1.0.0", line / "build/export/bundle", line, settings)
    assert comparison.against is not None
    assert {name: gain.value for name, gain in comparison.against.overall.gain.items()} == dict.fromkeys(METRICS, 0.0)


def test_another_scheme_gives_words_other_tags(
    line: Path, tagging: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    for place in ("data", "build/validate"):
        (tmp_path / place).symlink_to(line / place)
    run(tagging | {"task": tagging["task"] | {"scheme": "bioes"}}, "prepare")
    assert max(words_of(tmp_path, "label")) > max(words_of(line, "label"))


def on_pictures(document: dict[str, Any]) -> None:
    """Give the expert pictures in place of texts, and leave it alone."""
    expert = document["members"]["experts"]["text"] | {"modality": "image"}
    document.update(members={"experts": {"picture": expert}, "fusions": {}}, distill=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document["task"].pop("scheme"), "scheme: ner takes bio or bioes"),
        (on_pictures, "must use text"),
        (
            lambda document: document["members"]["experts"]["text"].update(
                augment={"text": {"drop": 0.1, "swap": 0.0}}
            ),
            "other words than their tags are for",
        ),
        (
            lambda document: document["members"]["fusions"]["fusion"]["augment"]["image"].update(mixup=0.2),
            "words' tags cannot be mixed",
        ),
        (
            lambda document: document["members"]["experts"]["text"].update(class_weights=dict.fromkeys(LABELS, 1.0)),
            "'O' does not fit",
        ),
    ],
    ids=["scheme", "text", "augment", "mixup", "weights"],
)
def test_params_that_do_not_fit_entities_are_refused(
    change: Callable[[dict[str, Any]], object], words: str, tagging: dict[str, Any]
) -> None:
    document = copy.deepcopy(tagging)
    change(document)
    with pytest.raises(ValueError, match=words):
        config.Params.model_validate(document)


def test_weights_of_labels_reach_the_tags(
    line: Path, tagging: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/prepare").symlink_to(line / "build/prepare")
    weights = dict.fromkeys(LABELS, 1.0) | {"O": 0.01}
    document = copy.deepcopy(tagging)
    document["members"]["experts"]["text"]["class_weights"] = weights
    run(document, "train")
    made, before = (
        hashlib.sha256((folder / "build/train/experts/text/model.safetensors").read_bytes()).hexdigest()
        for folder in (tmp_path, line)
    )
    assert made != before


def test_a_member_with_the_loss_crf_learns_how_tags_follow_each_other_and_answers_by_it(
    line: Path, tagging: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    for place in ("data", "build/prepare"):
        (tmp_path / place).symlink_to(line / place)
    document = copy.deepcopy(tagging)
    document["members"]["experts"]["text"] |= {"loss": "crf", "epochs": 6}
    document["distill"] = None
    run(document, "train", "fuse", "combine", "distill", "evaluate", "export")
    combination = Combination.read(Path("build/combine/combination.json"))
    learned = Transitions.read(Path("build/train/experts/text/transitions.json"))
    plain = Ner(LABELS, "bio").transitions
    assert learned.start != plain.start
    assert combination.decodings["text"].transitions == learned
    assert combination.decodings["fusion"].transitions is None
    pooled = combination.decoding.transitions
    assert pooled is not None
    share = combination.weights["text"] / combination.temperature
    assert pooled.end == pytest.approx([share * score for score in learned.end])
    assert read_bundle(Path("build/export/bundle")).transitions == pooled
    evaluation = Evaluation.read(Path("build/evaluate/evaluation.json"))
    assert evaluation.members["text"]["f1"].value > 0.5
    test = sorted(Path("build/prepare/test").glob("*.parquet"))
    texts, targets = ([row for file in test for row in pq.read_table(file)[name].to_pylist()] for name in
                      ("text", "target"))  # fmt: skip
    predictor = Predictor(Path("build/export/bundle"), ["CPUExecutionProvider"], 1)
    assert predictor.task.transitions == pooled  # type: ignore[attr-defined]
    probs = pq.read_table("build/evaluate/predictions.parquet")["probabilities"].to_numpy()
    task = Ner(LABELS, "bio").decided(combination.decoding)
    labels = [task.number(target, text) for target, text in zip(targets, texts, strict=True)]
    found = task.score(np.concatenate(probs).reshape(-1, 7), task.find_truth(labels, targets, texts))
    assert found["f1"] == pytest.approx(evaluation.ensemble["f1"].value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_smoothing": 0.1}, "smoothing"),
        ({"class_weights": "balanced"}, "weights"),
    ],
    ids=["smoothing", "weights"],
)
def test_the_loss_crf_is_refused_with_what_it_does_not_know(
    change: dict[str, Any], words: str, tagging: dict[str, Any]
) -> None:
    document = copy.deepcopy(tagging)
    document["members"]["experts"]["text"] |= {"loss": "crf"} | change
    with pytest.raises(ValueError, match=f"the loss crf is of whole sequences.*{words}"):
        config.Params.model_validate(document)


def test_the_loss_crf_is_refused_where_there_are_no_sequences(document: dict[str, Any]) -> None:
    found = copy.deepcopy(document)
    found["members"]["experts"]["text"]["loss"] = "crf"
    with pytest.raises(ValueError, match="crf is of sequences of tags; classification has none"):
        config.Params.model_validate(found)
