"""Batches that mean ill: each is refused in plain words or its rows are quarantined, and nothing outside it is read."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline.data import adapters, facts, intake, quarantine
from fuseline.data.fetch import fetch
from fuseline.errors import DataError
from tests.data.test_contract import rules
from tests.data.test_intake import TASK

OUTSIDE = "what stands outside"
GOOD = {"text": "good", "label": "red"}


def lines(*rows: Any) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in [*rows, GOOD]).encode()


def names(value: Any) -> Callable[[Path], None]:
    return lambda folder: put(folder, "rows.jsonl", lines({"image": value, "label": "red"}))


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def linked(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        make(folder)
        names("a.png")(folder)

    return build


def bomb() -> bytes:
    """Write a PNG of 2.5 gigapixels in ten kilobytes."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(10**7)),
        b"IEND": b"",
    }
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def picture(content: bytes) -> Callable[[Path], None]:
    return linked(lambda folder: put(folder, "a.png", content))


def rows(*lines_: Any) -> Callable[[Path], None]:
    return lambda folder: put(folder, "rows.jsonl", lines(*lines_))


QUARANTINED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a path that climbs": (names("../outside.txt"), "leads out of the batch"),
    "a path that climbs the other way": (names("..\\outside.txt"), "leads out of the batch"),
    "an absolute path": (names("/proc/self/environ"), "is an absolute path"),
    "a file URL": (names("file:///etc/passwd"), "is a URL"),
    "a presigned URL": (names("https://host/a.png?sig=verysecret"), "'https://host/a.png' is a URL"),
    "a NUL in a path": (names("a\0.png"), "NUL"),
    "half a character in a path": (names("\ud800.png"), "no file's name has"),
    "a path without end": (names("a/" * 5000 + "a.png"), "is not found"),
    "a number for a path": (names(5), "is a number"),
    "a link": (linked(lambda folder: (folder / "a.png").symlink_to(folder.parent / "outside.txt")), "a link out"),
    "a pipe": (linked(lambda folder: os.mkfifo(folder / "a.png")), "a pipe"),
    "a picture that is none": (linked(lambda f: os.link(f.parent / "outside.txt", f / "a.png")), "no known picture"),
    "a picture bomb": (picture(bomb()), "exceeds"),
    "a program for a picture": (picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no known picture"),
    "a picture cut off": (picture(bomb()[:60]), "cannot be decoded"),
    "an empty picture": (picture(b""), "no known picture"),
    "a label that is no number": (rows('{"text": "a", "label": NaN}'), "target is missing"),
    "a label that is a list": (rows({"text": "a", "label": ["red", "blue"]}), "is not one of the 3 labels"),
    "a label that is true": (rows({"text": "a", "label": True}), "target 'true' is not one"),
    "an integer without end": (rows('{"text": "a", "label": "red", "n": ' + "9" * 5000 + "}"), "not JSON"),
    "nesting without end": (rows('{"text": "a", "label": ' + "[" * 10**5 + "]" * 10**5 + "}"), "nested too deeply"),
    "half a character": (rows(r'{"text": "\ud800 is a letter of none", "label": "red"}'), "text is not UTF-8"),
    "another encoding": (lambda f: put(f, "rows.csv", b"text,label\ncaf\xe9 au lait,red\ngood,red\n"), "is not UTF-8"),
    "a ragged table": (lambda f: put(f, "rows.csv", b"text,label\na,red,more\ngood,red\n"), "3 cells; expected 2"),
}  # fmt: skip


def zipped(name: str, content: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        with zipfile.ZipFile(folder / "batch.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)

    return build


def table_of(count: int, **changes: Any) -> bytes:
    sink = pa.BufferOutputStream()
    text = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["a" * 10**6]))
    pq.write_table(pa.table({"text": text, "label": ["red"] * count}), sink, **changes)
    return bytes(sink.getvalue().to_pybytes())


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a zip that climbs": (zipped("../../rows.jsonl", lines()), "leads out of the archive"),
    "a zip bomb": (zipped("rows.jsonl", b"a" * (70 << 20)), "a decompression bomb is not read"),
    "a zip that is none": (lambda f: put(f, "batch.zip", b"PK\3\4"), "cannot be unpacked"),
    "a zip in a zip": (zipped("rows.zip", b"PK\3\4"), "no batch of a known format"),
    "a Parquet bomb": (lambda f: put(f, "rows.parquet", table_of(2000)), "a decompression bomb is not read"),
    "a Parquet cut off": (lambda f: put(f, "rows.parquet", table_of(2)[:-9]), "not a whole Parquet file"),
    "rows that are a link": (lambda f: (f / "rows.jsonl").symlink_to(f.parent / "outside.txt"), "a link out"),
    "rows that are a pipe": (lambda f: os.mkfifo(f / "rows.jsonl"), "a pipe"),
    "UTF-16": (lambda f: put(f, "rows.jsonl", lines().decode().encode("utf-16")), "encoded in UTF-16"),
    "a header with a NUL": (lambda f: put(f, "rows.csv", b"te\0xt,label\na,red\n"), "no column for text"),
    "nothing": (lambda f: None, "found nothing"),
}  # fmt: skip


@pytest.fixture
def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], Path]:
    """Give what takes a batch into a new data set, and returns that."""
    monkeypatch.setattr(facts, "workers", nullcontext)
    folder = tmp_path / "data"
    (tmp_path / "outside.txt").write_text(OUTSIDE)
    for place in ("batch", "data", "scratch"):
        (tmp_path / place).mkdir()
    intake.begin(folder, "made up", TASK)

    def run(make: Callable[[Path], None]) -> Path:
        make(tmp_path / "batch")
        archive = tmp_path / "batch/batch.zip"
        path = fetch(archive if archive.exists() else tmp_path / "batch", tmp_path / "scratch")
        intake.take_in(folder, adapters.read(path), "test", TASK, rules(max_text_chars=50, max_quarantined=0.5))
        return folder

    return run


@pytest.mark.parametrize("case", QUARANTINED)
def test_a_row_is_quarantined_that_holds(take: Callable[[Any], Path], case: str) -> None:
    make, why = QUARANTINED[case]
    folder = take(make)
    (refused,) = quarantine.read_refused(folder)
    (row,) = refused.rows.to_pylist()
    assert why in "; ".join(row["reasons"])
    assert "verysecret" not in repr(row)
    whole = b"".join(path.read_bytes() for path in folder.iterdir())
    assert (OUTSIDE.encode() in whole) == (case == "a picture that is none")  # as a hard link, it lies in the batch


@pytest.mark.parametrize("case", REFUSED)
def test_a_batch_is_refused_that_is(take: Callable[[Any], Path], case: str) -> None:
    make, why = REFUSED[case]
    with pytest.raises(DataError, match=why):
        take(make)
