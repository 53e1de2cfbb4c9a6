"""The bundle answers where only its own requirements are installed, or the rehearsal says that it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.errors import ExportError
from fuseline.inputs.image import decode_image
from fuseline.records import BundleFile, Rehearsal, sha256_of
from fuseline.rehearsal.environment import build_environment, read_pins
from fuseline.rehearsal.golden import constants_of, pick_golden
from fuseline.rehearsal.rehearse import rehearse
from fuseline.runtime import Predictor, Row
from fuseline.tasks.classification import Classification
from fuseline.tasks.ner import Ner

MODALITIES = ["text", "image"]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture(scope="module")
def evaluated(bundle: Path, rows: list[Row]) -> list[Any]:
    """Give what the runtime says of the rows, as an evaluation gives it."""
    return [one.probabilities[None] for one in Predictor(bundle, ["CPUExecutionProvider"]).answer(rows)]


@pytest.fixture(scope="module")
def rehearsal(bundle: Path, rows: list[Row], evaluated: list[Any]) -> Rehearsal:
    return rehearse(bundle, rows, evaluated, 6)


def change(folder: Path, name: str, text: str) -> None:
    """Change a file of a bundle, and let bundle.json vouch for it."""
    (folder / name).write_text(text)
    document = json.loads((folder / "bundle.json").read_text())
    file = BundleFile(sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)
    document["files"][name] = file.model_dump()
    (folder / "bundle.json").write_text(json.dumps(document))


def test_a_sound_bundle_answers_every_golden_row_as_here(rehearsal: Rehearsal) -> None:
    assert (rehearsal.problem, rehearsal.agreement, rehearsal.evaluation_agreement) == (None, 1.0, 1.0)
    assert rehearsal.max_difference is not None
    assert rehearsal.max_difference < 1e-5
    assert rehearsal.patterns == {"image": 2, "text": 2, "text+image": 2}
    assert 0 < (rehearsal.first_answer_seconds or 0) < rehearsal.seconds


def test_it_answered_with_its_own_requirements_alone(rehearsal: Rehearsal, bundle: Path) -> None:
    assert rehearsal.installed == read_pins(bundle / "requirements.txt")
    assert {"torch", "transformers", "fuseline", "pydantic"} & set(rehearsal.installed) == set()


def test_a_package_that_the_requirements_forget_is_the_problem(copy: Path, rows: list[Row]) -> None:
    pins = (copy / "requirements.txt").read_text()
    change(copy, "requirements.txt", "".join(f"{line}\n" for line in pins.splitlines() if "pillow" not in line))
    found = rehearse(copy, rows[:1], [np.ones((1, 3))], 1)
    assert found.problem == "ModuleNotFoundError: No module named 'PIL'"
    assert (found.agreement, found.max_difference) == (0.0, None)


def test_a_snippet_that_answers_otherwise_does_not_agree(copy: Path, rows: list[Row]) -> None:
    text = (copy / "README.md").read_text()
    assert '"white"' in text
    other = text.replace("np.asarray(picture)[None]", "255 - np.asarray(picture)[None]")
    assert other != text
    change(copy, "README.md", other)
    found = rehearse(copy, [rows[0]], [np.ones((1, 3))], 3)
    assert found.problem is None
    assert found.max_difference is not None
    assert found.max_difference > 1e-4


def test_an_evaluation_of_other_answers_is_seen(bundle: Path, rows: list[Row], evaluated: list[Any]) -> None:
    assert rehearse(bundle, rows, [1 - each for each in evaluated], 3).evaluation_agreement == 0.0


def test_golden_rows_reach_from_the_smallest_to_the_largest_of_each_kind() -> None:
    rows = [Row("a" * size) for size in (5, 1, 9, 3, 7)] + [Row("b", b"p" * size) for size in (4, 2)]
    golden = pick_golden(rows, MODALITIES, Classification(["x", "y"]), 6)
    assert [each.number for each in golden if each.pattern == "text"] == [1, 2]
    assert [each.number for each in golden if each.pattern == "text+image"] == [6, 5]
    hidden = [each for each in golden if each.pattern == "image"]
    assert [(each.row, each.number) for each in hidden] == [(Row(None, b"p" * size), None) for size in (2, 4)]


class Passing:
    """Rows that come one by one, each time anew, and the most of them that were there at once."""

    def __init__(self, count: int) -> None:
        self.count, self.there, self.most = count, weakref.WeakSet[Row](), 0

    def __iter__(self) -> Iterator[Row]:
        for number in range(self.count):
            row = Row("a", b"p" * (self.count - number))
            self.there.add(row)
            self.most = max(self.most, len(self.there))
            yield row


def test_rows_that_are_not_picked_do_not_stay_in_memory() -> None:
    rows = Passing(300)
    golden = pick_golden(rows, MODALITIES, Classification(["x", "y"]), 6)
    assert [each.number for each in golden if each.pattern == "text+image"] == [299, 0]
    assert rows.most <= 6 + 2


def test_what_must_be_there_is_never_hidden() -> None:
    golden = pick_golden([Row("a b", b"p"), Row("  ", b"p")], MODALITIES, Ner(["x"], "bio"), 2)
    assert [(each.pattern, each.row) for each in golden] == [("text", Row("a b")), ("text+image", Row("a b", b"p"))]


def test_a_picture_of_16_bits_is_scaled_beforehand_as_the_snippet_asks(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(buffer, "PNG")
    found = constants_of(Row(None, buffer.getvalue()), ["image"], False, False, tmp_path / "files")
    np.testing.assert_array_equal(decode_image(Path(found["IMAGE"]).read_bytes()), 156)


def test_an_environment_holds_what_is_pinned_and_nothing_else(tmp_path: Path) -> None:
    python = build_environment(read_pins_of("pyyaml"), tmp_path / "environment")
    code = "import yaml, importlib.util as u; print(yaml.safe_load('[1]'), u.find_spec('numpy'), yaml.__file__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[1] None ")
    assert str(tmp_path) in done.stdout


def read_pins_of(name: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("numpy", r"requirements\.txt, line 2: expected NAME==VERSION, found 'numpy'"),
        ("numpy==0.1", "numpy==0.1 is pinned by the bundle, but .* is installed here: run export again"),
        ("no-such-package==1.0", "no-such-package==1.0 is pinned by the bundle, but not installed here"),
    ],
    ids=["no version", "another version", "what is not installed"],
)
def test_requirements_are_refused_that_ask_for(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"# note\n{line}\n")
    with pytest.raises(ExportError, match=words):
        build_environment(read_pins(tmp_path / "requirements.txt"), tmp_path / "environment")


def test_pictures_of_four_forms_are_told_apart_from_missing_ones(picture: Callable[..., bytes], tmp_path: Path) -> None:
    one, none = Row("a", picture()), Row("a", [])
    assert constants_of(none, MODALITIES, True, True, tmp_path / "a") == {"TEXT": "a", "BOXES": [], "IMAGES": []}
    assert constants_of(none, MODALITIES, False, False, tmp_path / "b") == {"TEXT": "a", "IMAGE": None}
    assert constants_of(one, ["image"], True, False, tmp_path / "c")["IMAGES"] == [str(tmp_path / "c" / "0.image")]
