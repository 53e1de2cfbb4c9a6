"""The whole line where it counts where words stand in the picture: from a batch of files to a bundle that answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fuseline import config
from fuseline.cli import app
from fuseline.data import adapters, intake
from fuseline.inputs.boxes import BOXES
from fuseline.judge import answer
from fuseline.records import Evaluation, Parity
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from tests.conftest import paint, run_readme
from tests.stages.conftest import line_on_data, run

pytestmark = pytest.mark.slow
CPU = ["CPUExecutionProvider"]
SIDES = {"red": (50, 300), "blue": (600, 950)}
"""What a word is, by where it stands from left to right."""


def write_words(number: int, pictured: bool = True) -> dict[str, Any]:
    """Make a text of three words whose labels are a matter of their places alone, in a picture that shows nothing."""
    words, text, target, boxes = ("rose", "sea", "frog"), "", [], []
    for at in range(3):
        word, label = words[(number + at) % 3], list(SIDES)[(number >> at) % 2]
        start, (left, right), top = len(text), SIDES[label], 200 * at + number % 50
        text += f"{word} "
        target.append([start, start + len(word), label])
        boxes.append([start, start + len(word), left, top, right, top + 40])
    row = {"id": f"e{number}", "text": f"{text}{'s ' * (number // 24)}".strip(), "target": target}
    return row | ({"image": f"{number}.png", BOXES: boxes} if pictured else {})


@pytest.fixture(scope="module")
def placing(document: dict[str, Any]) -> dict[str, Any]:
    """Give params for such words: an expert on texts, and a fusion member with layout."""
    found = copy.deepcopy(document) | {"distill": None, "pretrain": None}
    found["task"] = {"kind": "ner", "scheme": "bio", "labels": sorted(SIDES)}
    found["validate"] |= {"max_text_chars": 200, "max_duplicates": 1.0, "max_conflicts": 1.0}
    found["prepare"]["duplicates"] |= {"text_similarity": 1.0, "image_distance": 0.0}
    found["encoders"]["text"]["max_length"] = 20
    found["members"]["experts"].pop("image")
    found["members"]["experts"]["text"] |= {"dropout": 0.0}
    found["members"]["fusions"]["fusion"] |= {"start": {"text": "text"}, "epochs": 12, "dropout": 0.0, "layout": True}
    return found


@pytest.fixture(scope="module")
def line(placing: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the whole line; every sixth row has no picture, and one batch of two has no boxes at all."""
    folder = tmp_path_factory.mktemp("line")
    params = config.Params.model_validate(placing)
    (folder / "data").mkdir()
    intake.begin(folder / "data", "tiny", params.task)
    rows = [write_words(number, number % 6 != 5) for number in range(96)]
    plain = [write_words(number, pictured=False) for number in range(96, 102)]
    for name, batch in {"placed": rows, "plain": plain}.items():
        (folder / name).mkdir()
        (folder / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in batch))
        for number in range(96):
            (folder / name / f"{number}.png").write_bytes(paint((90, 90, 2 * number)))
        drafts = adapters.read(folder / name, "lines")
        taken = intake.take_in(folder / "data", drafts, name, params.task, params.validate_)
        assert (taken.accepted, taken.quarantined) == (len(batch), 0), taken.examples
    with line_on_data(folder, placing):
        yield folder


def test_a_file_has_boxes_only_where_a_row_does(line: Path) -> None:
    names = {path.name[:11]: pq.read_schema(path).names for path in (line / "build/prepare/train").iterdir()}
    assert (BOXES in names["shard-00000"], BOXES in names["shard-00001"]) == (True, False)


def test_only_the_member_that_sees_places_learns_them(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    assert evaluation.members["fusion"]["f1"].value > 0.75  # a sixth of the rows has no picture
    assert evaluation.members["text"]["f1"].value < 0.6
    assert evaluation.fusion_gain["f1"].value > 0.2


def test_a_member_without_the_key_does_not_learn_them(
    line: Path, placing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("data", "build/prepare", "build/pretrain", "build/train/experts"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(line / place)
    monkeypatch.chdir(tmp_path)
    changed = copy.deepcopy(placing)
    changed["members"]["fusions"]["fusion"]["layout"] = False
    run(changed, "fuse", "combine", "evaluate")
    evaluation = Evaluation.read(tmp_path / "build/evaluate/evaluation.json")
    assert evaluation.members["fusion"]["f1"].value < 0.6
    assert not any("layout" in name for name in load_file("build/train/fusions/fusion/model.safetensors"))


def test_the_bundle_says_what_was_evaluated(line: Path) -> None:
    parity = Parity.read(line / "build/export/parity.json")
    bundle = read_bundle(line / "build/export/bundle")
    assert parity.max_logit_difference < 1e-3
    assert (parity.argmax_agreement, parity.evaluation_agreement) == (1.0, 1.0)
    assert bundle.format == 5
    assert bundle.inputs[BOXES].startswith("int64 [batch, tokens, 4], left, top, right, bottom")
    assert "layout.json" in bundle.files


def test_predict_takes_boxes_and_so_does_the_readme(line: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(paint((90, 90, 90)))
    row = write_words(4) | {"image": "a.png"}
    asked = [row, row | {BOXES: None}, row | {"image": None}, {key: row[key] for key in ("id", "text")}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    bundle = line / "build/export/bundle"
    done = CliRunner().invoke(app, ["predict", str(bundle), "--input", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 0, done.output
    found = [[[one[key] for key in ("start", "end", "label")] for one in json.loads(answer)["entities"]]
             for answer in done.stdout.splitlines()]  # fmt: skip
    assert found[0] == row["target"]
    assert found[1] != found[0]
    assert found[2] == found[3]
    shown = run_readme(
        bundle, tmp_path, TEXT=repr(row["text"]), BOXES=repr(row[BOXES]), IMAGE=repr(str(tmp_path / "a.png"))
    )
    assert [part.split()[:3] for part in shown.strip().splitlines()] == [list(map(str, each)) for each in found[0]]


def test_places_count_with_the_picture_alone(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", CPU, 1)
    row, grey = write_words(4), paint((90, 90, 90))
    rows = [
        Row(row["text"], grey, boxes=row[BOXES]), Row(row["text"], grey),
        Row(row["text"], boxes=row[BOXES]), Row(row["text"]),
    ]  # fmt: skip
    with_both, no_boxes, no_picture, neither = (one.probabilities for one in predictor.answer(rows))
    assert np.abs(with_both - no_boxes).max() > 0.1
    np.testing.assert_allclose(no_picture, neither, atol=1e-6)


def test_answers_do_not_depend_on_the_rows_beside_them(line: Path) -> None:
    predictor, grey = Predictor(line / "build/export/bundle", CPU, 1), paint((90, 90, 90))
    written = [write_words(number) for number in (1, 2, 60, 90)]
    rows = [Row(row["text"], grey if at % 2 else None, boxes=row[BOXES]) for at, row in enumerate(written)]
    together, apart = (list(predictor.answer(rows, size)) for size in (4, 1))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_the_judge_shows_a_champion_the_places(line: Path) -> None:
    predictor, test = Predictor(line / "build/export/bundle", CPU, 1), line / "build/prepare/test"
    rows = [row for file in sorted(test.iterdir()) for row in pq.read_table(file).to_pylist()]
    probs = answer(predictor, test, len(rows), "anybody")
    shown = [
        Row(row["text"], row["image"] and row["image"]["bytes"], boxes=json.loads(row.get(BOXES) or "[]"))
        for row in rows
    ]
    expected = np.concatenate([one.probabilities for one in predictor.answer(shown)])
    np.testing.assert_allclose(np.asarray(probs).reshape(expected.shape), expected, atol=1e-5)


def test_a_frozen_encoder_s_member_learns_places_too(
    line: Path, placing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("data", "build/prepare", "build/pretrain", "build/train/experts"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(line / place)
    monkeypatch.chdir(tmp_path)
    changed = copy.deepcopy(placing)
    member = changed["members"]["fusions"]["fusion"]
    member |= {"tuning": {"text": "frozen", "image": "frozen"}, "epochs": 3}
    member["learning_rate"] |= {"text": None, "image": None}
    run(changed, "fuse")
    trained = load_file("build/train/fusions/fusion/model.safetensors")
    expert = load_file("build/train/experts/text/model.safetensors")
    assert trained["encoders.text.layout.weight"].abs().max() > 0
    kept = [name for name in expert if name.startswith("encoders.text.backbone.")]
    assert kept
    assert all(torch.equal(trained[name], expert[name]) for name in kept)
