"""Parquet: as Hugging Face datasets, pandas and others write it, whole or not."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from fuseline.data import drafts
from fuseline.data.adapters import parquet
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def store(batch: Path) -> Callable[..., Path]:
    """Write columns as a file."""

    def to(columns: dict[str, Any], **options: Any) -> Path:
        batch.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), batch / "rows.parquet", **options)
        return batch / "rows.parquet"

    return to


def test_class_labels_and_pictures_of_hugging_face_are_read(batch: Path, rows_of: Rows, picture: Any) -> None:
    batch.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"]), "text": Value("string")})
    rows = [{"image": {"bytes": picture(), "path": None}, "label": n, "text": "t"} for n in (1, 0, -1)]
    Dataset.from_list(rows, features=features).to_parquet(batch / "rows.parquet")
    found = rows_of(batch)
    assert [row.get("target") for row in found] == ["dog", "cat", None]
    assert [row.get("problem") for row in found] == [None, None, "target is missing"]
    assert found[0]["image"] == picture()


def test_a_class_that_has_no_name_is_a_problem(store: Callable[..., Path], rows_of: Rows) -> None:
    label = {"_type": "ClassLabel", "names": ["cat"]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    path = store({"text": ["a", "b"], "label": [0, 7]})
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    assert [row.get("problem") for row in rows_of(path)] == [
        None,
        "label 7 is none of its 1 classes; target is missing",
    ]


def test_pictures_may_be_bytes_or_paths(store: Callable[..., Path], write: Write, rows_of: Rows) -> None:
    write("a.png", b"a")
    struct = pa.array(
        [{"bytes": None, "path": "a.png"}, None], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    path = store({"image": [b"b", None], "image_pair": struct, "audio": ["a.png", "../x"], "label": ["x", "y"]})
    first, second = rows_of(path)
    assert (first["image"], first["image_pair"], first["audio"]) == (b"b", b"a", b"a")
    assert "leads out of the batch" in second["problem"]


def test_any_type_becomes_text_or_meta(store: Callable[..., Path], rows_of: Rows) -> None:
    path = store({
        "id": [1], "text": pa.array(["a"], pa.large_string()), "label": pa.array(["x"]).dictionary_encode(),
        "at": [datetime.date(2020, 1, 2)], "score": [float("nan")], "spans": [[{"start": 0}]], "raw": [b"123"],
    })  # fmt: skip
    (row,) = rows_of(path)
    assert (row["id"], row["text"], row["target"]) == ("1", "a", "x")
    assert json.loads(row["meta"]) == {"at": "2020-01-02", "score": None, "spans": [{"start": 0}], "raw": "3 bytes"}


def test_a_label_that_is_not_a_number_is_missing(store: Callable[..., Path], rows_of: Rows) -> None:
    rows = rows_of(store({"text": ["a", "b"], "label": [1.5, float("nan")]}))
    assert [(row.get("target"), row.get("problem")) for row in rows] == [("1.5", None), (None, "target is missing")]


def test_text_that_is_not_utf8_is_that_rows_problem(store: Callable[..., Path], rows_of: Rows) -> None:
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"caf\xe9"], pa.binary()).buffers())
    first, second = rows_of(store({"text": text, "label": ["x", "y"]}))
    assert first["text"] == "ok"
    assert second["problem"] == "text is not UTF-8"


@pytest.mark.parametrize("keep", [0, 3, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused(store: Callable[..., Path], rows_of: Rows, keep: float) -> None:
    path = store({"text": ["a"] * 100, "label": ["x"] * 100})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(DataError, match=r"rows\.parquet: not a whole Parquet file"):
        rows_of(path)


def test_a_column_that_is_there_twice_is_refused(batch: Path, rows_of: Rows) -> None:
    batch.mkdir()
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "label", "text"])
    pq.write_table(table, batch / "rows.parquet")
    with pytest.raises(DataError, match="'text' is there twice"):
        rows_of(batch)


def test_one_large_value_in_all_rows_does_not_fill_memory(
    store: Callable[..., Path], rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store({"image": [b"x" * 100_000] * 1000, "label": ["x"] * 1000}, compression="zstd")
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(parquet, "TABLE_BYTES", 1_000_000)
    tables = list(parquet.read(parquet.Batch(path.parent), path.name))
    assert max(table.num_rows for table in tables) <= 10
    assert sum(table.num_rows for table in tables) == 1000
    assert drafts.DRAFT.equals(tables[0].schema)


def test_a_decompression_bomb_is_refused(
    store: Callable[..., Path], batch: Path, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BOMB_BYTES", 1_000_000)
    store({"text": ["x" * 5_000_000], "label": ["x"]}, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="decompression bomb"):
        rows_of(batch)
    store({"text": ["x" * 500_000] * 1000, "label": ["x"] * 1000}, compression="zstd")
    with pytest.raises(DataError, match="decompression bomb"):
        rows_of(batch)


def test_a_giant_text_is_left_out(store: Callable[..., Path], rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuseline.data import cells, tabular

    monkeypatch.setattr(cells, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(tabular, "MAX_RECORD_BYTES", 1000)
    first, second = rows_of(store({"text": ["a", "b" * 2000], "label": ["x", "y"]}))
    assert first["text"] == "a"
    assert second["problem"] == "text has 2,000 characters; at most 1,000 are read"
