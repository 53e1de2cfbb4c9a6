"""Records: written whole, sorted and without NaN; read strictly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.records import Combination, Estimate, Evaluation, Validation, files_of, sha256_of, write_json

COMBINATION = Combination(weights={"text": 0.25, "image": 0.75}, temperature=1.5, pool="geometric")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "combination.json"


def test_a_record_comes_back_as_it_was_written(path: Path) -> None:
    COMBINATION.write(path)
    assert Combination.read(path) == COMBINATION


def test_a_large_record_comes_back_as_it_was_written(path: Path, evaluation: Evaluation) -> None:
    evaluation.write(path)
    assert Evaluation.read(path) == evaluation


def test_the_same_record_gives_the_same_bytes_and_sorted_keys(path: Path) -> None:
    COMBINATION.write(path)
    first = path.read_bytes()
    Combination(temperature=1.5, pool="geometric", weights={"image": 0.75, "text": 0.25}).write(path)
    assert path.read_bytes() == first
    assert list(json.loads(first)) == sorted(Combination.model_fields)


def test_only_the_whole_file_is_left(tmp_path: Path) -> None:
    COMBINATION.write(tmp_path / "new" / "folder" / "combination.json")
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["combination.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_know_is_refused_and_the_old_file_stays(value: float, path: Path) -> None:
    COMBINATION.write(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": value})
    assert Combination.read(path) == COMBINATION
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_estimate_cannot_be_written(path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Estimate(value=math.nan, low=0, high=1).write(path)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"weights": {}, "temperature": 1}, "at pool: Field required"),
        ({"weights": {}, "temperature": 1, "pool": "x", "bias": 2}, "at bias: Extra inputs are not permitted"),
        ({"weights": {"a": "much"}, "temperature": 1, "pool": "x"}, r"at weights\.a: "),
        ([], "at the document: "),
    ],
    ids=["a key too few", "a key too many", "a word for a number", "a list"],
)
def test_a_document_is_refused_by_file_and_key_with(document: object, words: str, path: Path) -> None:
    path.write_text(json.dumps(document))
    with pytest.raises(FuselineError, match=rf"combination\.json: not a valid Combination record {words}"):
        Combination.read(path)


@pytest.mark.parametrize("text", ["", "{", "not json"])
def test_a_file_that_is_not_json_is_refused(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(FuselineError, match=r"combination\.json: not a valid"):
        Combination.read(path)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(FuselineError, match=r"combination\.json: cannot be read \(No such file or directory\)"):
        Combination.read(path)


def test_records_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        COMBINATION.temperature = 2.0  # type: ignore[misc]


def test_the_digest_is_sha256(path: Path) -> None:
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_words_of_all_scripts_stay_readable(path: Path) -> None:
    Validation(passed=True, why="größer · 猫", rows=1, quarantined=0, expectations=[]).write(path)
    assert "größer · 猫" in path.read_text(encoding="utf-8")


def test_the_files_of_a_split_come_in_the_order_of_their_shards(tmp_path: Path) -> None:
    for name in ("shard-00010-a.parquet", "shard-00002-b.parquet", "note.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files_of(tmp_path)] == ["shard-00002-b.parquet", "shard-00010-a.parquet"]


def test_a_split_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="holds no Parquet file; the prepare stage writes them"):
        files_of(tmp_path / "test")
