"""The whole line where a row may have several pictures: from a batch of files to a bundle that answers with them."""

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
from fuseline.errors import DataError
from fuseline.inputs.image import MORE
from fuseline.judge import answer
from fuseline.records import Evaluation, Parity
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from tests.conftest import COLORS, LABELS, WORDS, paint, run_readme
from tests.stages.conftest import line_on_data, run

pytestmark = pytest.mark.slow
CPU = ["CPUExecutionProvider"]
GREYS = ((90, 90, 90), (140, 140, 140), (200, 200, 200))


def write_batch(folder: Path, rows: int = 96) -> Path:
    """Write a batch of rows with none to three pictures, of several sizes; one of them shows the label's colour."""
    folder.mkdir()
    with (folder / "rows.jsonl").open("w") as lines:
        for number in range(rows):
            label, count, names = LABELS[number % 3], number % 4, []
            for at in range(count):
                color = COLORS[label] if at == number % count else GREYS[at]
                color = tuple(min(255, channel + number // 4) for channel in color)
                names.append(f"{number}-{at}.png")
                (folder / names[-1]).write_bytes(paint(color, 30 + number % 2 * 10, 30 + at % 2 * 4))
            text = f"the {WORDS[label][number % 3]} {'s ' * (number // 12)}" if not count or number % 3 else None
            image = names[0] if count == 1 else names
            lines.write(json.dumps({"id": f"e{number}", "text": text, "image": image, "label": label}) + "\n")
    return folder


@pytest.fixture(scope="module")
def pictures(document: dict[str, Any]) -> dict[str, Any]:
    """Give params for rows with up to three pictures."""
    found = copy.deepcopy(document) | {"distill": None, "pretrain": None}
    found["validate"] |= {"max_text_chars": 200, "max_pictures": 3, "max_duplicates": 1.0, "max_conflicts": 1.0}
    found["prepare"]["duplicates"] |= {"text_similarity": 1.0, "image_distance": 0.0}
    found["encoders"]["image"]["several"] = True
    found["members"]["experts"]["image"] |= {"epochs": 12, "dropout": 0.0}
    found["members"]["experts"]["text"] |= {"epochs": 6, "dropout": 0.0}
    return found


@pytest.fixture(scope="module")
def line(pictures: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the whole line."""
    folder = tmp_path_factory.mktemp("line")
    params = config.Params.model_validate(pictures)
    (folder / "data").mkdir()
    intake.begin(folder / "data", "tiny", params.task)
    drafts = adapters.read(write_batch(folder / "batch"), "lines")
    taken = intake.take_in(folder / "data", drafts, "batch", params.task, params.validate_)
    assert (taken.accepted, taken.quarantined) == (96, 0)
    with line_on_data(folder, pictures):
        yield folder


def read_split(line: Path, split: str) -> list[dict[str, Any]]:
    return [
        row for file in sorted((line / f"build/prepare/{split}").iterdir()) for row in pq.read_table(file).to_pylist()
    ]


def test_prepared_rows_have_all_their_pictures(line: Path) -> None:
    rows = [row for split in ("train", "val", "test") for row in read_split(line, split)]
    counts = [0 if row["image"] is None else 1 + len(row[MORE] or []) for row in rows]
    assert [int(row["id"][1:]) % 4 for row in rows] == counts
    assert set(counts) == {0, 1, 2, 3}


def test_the_line_learns_from_all_pictures_of_a_row(line: Path) -> None:
    evaluation = Evaluation.read(line / "build/evaluate/evaluation.json")
    assert evaluation.members["image"]["accuracy"].value > 0.8  # the first picture alone shows it in 17 of 36
    assert set(evaluation.patterns) == {"text", "image"}


def test_the_bundle_says_what_was_evaluated(line: Path) -> None:
    parity = Parity.read(line / "build/export/parity.json")
    bundle = read_bundle(line / "build/export/bundle")
    assert parity.rows == len(read_split(line, "test"))
    assert parity.max_logit_difference < 1e-3
    assert (parity.argmax_agreement, parity.evaluation_agreement) == (1.0, 1.0)
    assert bundle.format == 4
    assert bundle.inputs["pixels"] == "uint8 [batch, pictures, height, width, 3], RGB"
    assert bundle.inputs["picture_counts"] == "int64 [batch], pictures of each row that count"
    assert bundle.inputs["has_image"] == "bool [batch]"
    assert "image.json" in bundle.files


def test_predict_takes_lists_and_so_does_the_readme(line: Path, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(paint(COLORS["blue"] if number == 2 else GREYS[number], 30 + 20 * number, 44))
    asked: list[Any] = [names, names[2:], names[2], names[::-1], []]
    lines = [json.dumps({"id": at, "text": "the", "image": image}) for at, image in enumerate(asked)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    bundle = line / "build/export/bundle"
    done = CliRunner().invoke(app, ["predict", str(bundle), "--input", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 0, done.output
    found = [json.loads(answer)["probabilities"] for answer in done.stdout.splitlines()]
    assert len(found) == len(asked)
    assert found[1] == found[2]
    assert found[3] == pytest.approx(found[0], abs=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-3)
    label, probability = run_readme(
        bundle, tmp_path, TEXT="'the'", IMAGES=repr([str(tmp_path / name) for name in names])
    ).split()
    assert round(float(probability), 3) == pytest.approx(found[0][label], abs=1e-3) == max(found[0].values())


def test_answers_do_not_depend_on_the_rows_beside_them(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", CPU, 1)
    red, blue = paint(COLORS["red"]), paint(COLORS["blue"], 20, 20)
    rows = [
        Row("rose", [red, blue]),
        Row("sea"),
        Row(None, [red]),
        Row("frog", red),
        Row(None, [red, red, blue]),
        Row("a", []),
    ]
    together, apart = (list(predictor.answer(rows, size)) for size in (6, 1))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_broken_picture_is_named(line: Path) -> None:
    predictor = Predictor(line / "build/export/bundle", CPU, 1)
    with pytest.raises(DataError, match="a row: picture 2 of 2: picture cannot be decoded"):
        list(predictor.answer([Row("rose", [paint(), b"no picture"])]))


def test_a_champion_for_one_picture_is_shown_the_first(line: Path, bundle: Path) -> None:
    shown = [row for row in read_split(line, "test") if row["image"] is not None or row["text"] is not None]
    probs = answer(Predictor(bundle, CPU, 1), line / "build/prepare/test", len(shown), "anybody")
    rows = [Row(row["text"], row["image"] and row["image"]["bytes"]) for row in shown]
    expected = [each.probabilities for each in Predictor(bundle, CPU, 1).answer(rows)]
    np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_a_bundle_for_one_picture_takes_lists_of_one_and_refuses_more(bundle: Path) -> None:
    predictor = Predictor(bundle, CPU, 1)
    alone, listed = predictor.answer([Row("rose", paint()), Row("rose", [paint()])])
    np.testing.assert_array_equal(alone.probabilities, listed.probabilities)
    with pytest.raises(DataError, match="2 pictures are given; the model takes one of each row"):
        list(predictor.answer([Row("rose", [paint(), paint()])]))


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_a_row_with_one_picture_trains_the_same_to_the_last_bit(
    document: dict[str, Any], tuning: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for several in (False, True):
        folder = tmp_path / str(several)
        (folder / "build").mkdir(parents=True)
        (folder / "build/prepare").symlink_to(prepared)
        (folder / "build/pretrain").mkdir()
        monkeypatch.chdir(folder)
        changed = copy.deepcopy(document) | {"pretrain": None, "distill": None}
        changed["encoders"]["image"]["several"] = several
        augment = dict.fromkeys(("flip", "translate", "scale", "color", "mixup"), 0.5) | {"degrees": 20.0, "erase": 0.0}
        for member in (changed["members"]["experts"]["image"], changed["members"]["fusions"]["fusion"]):
            member["augment"] = {} if tuning == "frozen" else {"image": augment}
            member["tuning"] = tuning if "modality" in member else member["tuning"] | {"image": tuning}
            if tuning == "frozen":
                member["learning_rate"]["encoder" if "modality" in member else "image"] = None
        run(changed, "train", "fuse")
        found[several] = {name: load_file(folder / f"build/train/{name}/model.safetensors") for name in
                          ("experts/image", "fusions/fusion")}  # fmt: skip
    for name, weights in found[False].items():
        assert all(torch.equal(tensor, found[True][name][key]) for key, tensor in weights.items())


def test_more_pictures_than_the_encoder_takes_are_refused(pictures: dict[str, Any]) -> None:
    pictures = copy.deepcopy(pictures)
    pictures["encoders"]["image"]["several"] = False
    with pytest.raises(ValueError, match=r"encoders.image.several: false, but rows may have 3 pictures"):
        config.Params.model_validate(pictures)
    pictures["validate"]["max_pictures"] = 1
    config.Params.model_validate(pictures)
