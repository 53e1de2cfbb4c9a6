"""Whatever rows come in, answers come out in their shape, and an error names the row."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from fuseline.data.shards import write_table
from fuseline.errors import BundleError, DataError
from fuseline.inputs.image import MAX_PIXELS
from fuseline.runtime import Predictor, Row

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, CPU, threads=1)


@pytest.fixture(scope="module")
def expected(predictor: Predictor, rows: list[Row]) -> np.ndarray[Any, Any]:
    return np.stack([answer.probabilities for answer in predictor.answer(rows)])


def test_a_row_gives_one_label_and_a_list_gives_a_list(predictor: Predictor, rows: list[Row], expected: Any) -> None:
    labels = [predictor.classes_[best] for best in expected.argmax(1)]
    assert predictor.predict(rows) == predictor.predict(tuple(rows), batch_size=3) == labels
    assert predictor.predict(rows[0]) == labels[0]
    assert predictor.predict({"text": "sea"}) == labels[5]
    assert predictor.predict([]) == []


def test_probabilities_are_a_matrix_in_the_order_of_the_classes(
    predictor: Predictor, rows: list[Row], expected: Any, labels: list[str]
) -> None:
    found = predictor.predict_proba(rows)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.shape, found.dtype, list(predictor.classes_)) == ((8, 3), np.float32, labels)
    assert predictor.predict_proba(rows[0]).shape == (3,)
    assert predictor.predict_proba([]).shape == (0, 3)


def test_a_stream_is_answered_as_it_comes_a_batch_at_a_time(predictor: Predictor) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Row]:
        while True:
            taken.append(1)
            yield Row("sea")

    answers = predictor.predict(endless(), batch_size=4)
    assert taken == []
    assert next(answers) == predictor.predict(Row("sea"))
    assert len(taken) == 4
    next(predictor.predict_proba(endless(), batch_size=2))
    assert len(taken) == 6


def table(rows: list[Row], folder: Path, image: Callable[[bytes, Path], Any]) -> list[dict[str, Any]]:
    """Give rows as plain values, each picture as `image` makes it."""
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        path = folder / f"{number}.png"
        if isinstance(row.image, bytes):
            path.write_bytes(row.image)
        found.append({"id": number, "text": row.text, "image": row.image and image(row.image, path)})
    return found


IMAGES: dict[str, Callable[[bytes, Path], Any]] = {
    "paths": lambda _, path: str(path),
    "path objects": lambda _, path: path,
    "bytes": lambda data, _: data,
    "pictures of PIL": lambda data, _: Image.open(BytesIO(data)),
    "arrays": lambda data, _: np.asarray(Image.open(BytesIO(data))),
    "lists of one": lambda data, _: [data],
    "structs of datasets": lambda data, _: {"bytes": data, "path": None},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_data_frame_is_answered_row_by_row_with_pictures_as(
    kind: str, predictor: Predictor, rows: list[Row], expected: Any, tmp_path: Path
) -> None:
    frame = pd.DataFrame(table(rows, tmp_path, IMAGES[kind]))
    np.testing.assert_allclose(predictor.predict_proba(frame), expected, atol=1e-6)
    assert predictor.predict(frame.set_index("id")) == predictor.predict(rows)


def test_every_way_in_which_pandas_says_missing_is_understood(predictor: Predictor) -> None:
    frame = pd.DataFrame({"text": ["sea"] * 4, "image": [None, float("nan"), pd.NA, pd.NaT]})
    assert predictor.predict(frame) == [predictor.predict(Row("sea"))] * 4


@pytest.fixture(scope="module")
def files(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the same rows as JSON Lines, CSV, TSV and Parquet, one with paths and one with bytes."""
    folder = tmp_path_factory.mktemp("files")
    plain = table(rows, folder, lambda _, path: path.name)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    pd.DataFrame(plain).to_csv(folder / "rows.csv", index=False)
    pd.DataFrame(plain).to_csv(folder / "rows.tsv", index=False, sep="\t")
    write_table(pa.Table.from_pylist(plain), folder / "rows.parquet")
    write_table(pa.Table.from_pylist(table(rows, folder, lambda data, _: data)), folder / "bytes.parquet")
    return folder


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv", "rows.parquet", "bytes.parquet"])
def test_a_file_is_answered_lazily(
    name: str, files: Path, predictor: Predictor, rows: list[Row], expected: Any
) -> None:
    answers = predictor.predict_proba(files / name)
    assert not isinstance(answers, list)
    np.testing.assert_allclose(np.stack(list(answers)), expected, atol=1e-6)
    assert list(predictor.predict(files / name, batch_size=3)) == predictor.predict(rows)


def test_a_folder_gives_the_rows_of_all_its_files_or_each_picture_as_a_row(
    files: Path, predictor: Predictor, rows: list[Row], tmp_path: Path
) -> None:
    assert len(list(predictor.predict(files))) == 5 * len(rows)
    for number in (1, 0):
        (tmp_path / f"{number}.png").write_bytes((files / f"{number}.png").read_bytes())
    (tmp_path / "notes.txt").write_text("no picture")
    alone = [Row(None, (files / f"{number}.png").read_bytes()) for number in (0, 1)]
    assert list(predictor.predict(tmp_path)) == predictor.predict(alone)


BAD: dict[str, tuple[Any, str]] = {
    "in a list": ([Row("sea"), Row("sea", b"no picture")], r"rows\[1\]: picture cannot be decoded"),
    "a row that is none": ([Row("sea"), 5], r"rows\[1\]: expected a Row or a dict, found int"),
    "a dict of nothing": ([{"txt": "a"}], r"rows\[0\]: none of text, image, audio is given"),
    "a text that is a number": ({"text": 5}, "the row: text must be a non-empty string or left out, found 5"),
    "a path to nothing": ({"image": "nowhere.png"}, r"the row: image nowhere\.png cannot be read"),
    "an array of floats": (
        {"image": np.zeros((4, 4, 3))}, r"the row: picture is float64 \[4, 4, 3\]; expected uint8 \[height, width\]",
    ),
    "channels first": ({"image": np.zeros((3, 4, 8), np.uint8)}, r"picture is uint8 \[3, 4, 8\]; expected"),
    "no pixels": ({"image": np.zeros((0, 4, 3), np.uint8)}, "picture holds no pixels"),
    "too many pixels": (
        {"image": np.broadcast_to(np.uint8(1), (MAX_PIXELS // 1000 + 1, 1000))}, "exceeds 64,000,000 pixels",
    ),
    "samples without a rate": (
        {"audio": np.zeros(5)}, "audio must be a non-empty path, the bytes of a file, or left out, found .* of ndarray",
    ),
    "a frame without columns": (pd.DataFrame({"txt": ["a"]}), r"none of the columns text, .*; it has \['txt'\]"),
    "in a frame": (
        pd.DataFrame({"text": ["a", "b"], "image": [None, b"no"]}, index=["x", "y"]),
        "the DataFrame's row 'y': picture cannot be decoded",
    ),
    "a text in place of a row": ("a text", r"found str; a text is asked as Row\(text\)"),
    "a number": (7, "found int"),
    "a file of another kind": (Path("rows.docx"), r"rows\.docx: rows are read from \.jsonl, .* and folders"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_is_refused_by_name(case: str, predictor: Predictor) -> None:
    given, words = BAD[case]
    for ask in (predictor.predict, predictor.predict_proba, predictor.explain_modalities):
        with pytest.raises(DataError, match=words):
            list(ask(given))


def test_a_row_with_nothing_that_the_bundle_takes_is_named(predictor: Predictor) -> None:
    with pytest.raises(BundleError, match=r"rows\[1\] has none of text, image; expected at least one"):
        predictor.predict([Row("sea"), Row(audio=b"sound")])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "text\nsea\n,", "line 3: more cells than the header"),
        ("a.csv", 'text,image\n"sea', "not CSV in UTF-8"),
        ("a.csv", "text,image\nsea,nowhere.png\n", r"line 2: image .*nowhere\.png cannot be read"),
        ("a.csv", "text,id\n,1\n", "line 2: none of text, image, audio is given"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
    ],
)
def test_a_bad_table_is_named(name: str, text: str, words: str, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}.*{words}"):
        list(predictor.predict(tmp_path / name))


def test_what_modalities_add_and_chance_sum_to_the_answers_log_probability(
    predictor: Predictor, rows: list[Row], expected: Any
) -> None:
    found = predictor.explain_modalities(rows, batch_size=4)
    assert [one.answer for one in found] == predictor.predict(rows)
    for one, row, probs in zip(found, rows, expected, strict=True):
        assert set(one.modalities) == {name for name in ("text", "image") if getattr(row, name) is not None}
        assert one.chance == pytest.approx(np.log(1 / 3))
        assert one.log_probability == pytest.approx(np.log(probs.max()), abs=1e-5)
        assert one.chance + sum(one.modalities.values()) == pytest.approx(one.log_probability, abs=1e-9)


def test_what_each_of_two_modalities_adds_is_the_mean_over_both_orders(predictor: Predictor, rows: list[Row]) -> None:
    row = rows[0]
    told = predictor.explain_modalities(row)
    best = list(predictor.classes_).index(told.answer)
    both, text, image = np.log(
        predictor.predict_proba([row, Row(row.text), Row(None, row.image)])[:, best].astype(float)
    )
    assert told.modalities["text"] == pytest.approx(((text - np.log(1 / 3)) + (both - image)) / 2, abs=1e-5)
    assert told.modalities["image"] == pytest.approx(((image - np.log(1 / 3)) + (both - text)) / 2, abs=1e-5)


def test_a_stream_is_explained_as_it_comes(predictor: Predictor, rows: list[Row]) -> None:
    taken: list[Row] = []
    told = predictor.explain_modalities((taken.append(row) or row for row in rows), batch_size=6)
    assert next(told).answer == predictor.predict(rows[0])
    assert len(taken) < len(rows)


def test_the_public_names_are_there_and_others_are_not() -> None:
    code = (
        "import sys, fuseline.runtime as r; assert 'numpy' not in sys.modules; r.Predictor, r.Row, r.Answer, "
        "r.Contribution; assert not {'torch', 'transformers', 'pandas', 'pyarrow', 'onnx', 'cryptography', 'scipy', "
        "'soundfile', 'fuseline.config'} & set(sys.modules); r.Nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "module 'fuseline.runtime' has no attribute 'Nothing'" in done.stderr, done.stderr


def test_the_readmes_python_runs(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "fuseline.runtime" in block)
    (tmp_path / "champion").symlink_to(bundle)
    (tmp_path / "rows.jsonl").write_text('{"text": "sea"}\n')
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["told"].modalities) == {"text"}
    assert len(list(names["answers"])) == 1
