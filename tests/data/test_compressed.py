"""Compressed rows are read like plain ones, in bounded memory, and a bomb or a broken stream is an error in words."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from fuseline.data import adapters, unpack
from fuseline.data.compressed import open_rows, plain_name
from fuseline.errors import DataError

PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ROWS = {
    "rows.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n',
    "rows.json": '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]',
    "rows.csv": "text,label\na,x\nb,y\n",
    "rows.tsv": "text\tlabel\na\tx\nb\ty\n",
}


def put(folder: Path, name: str, text: str) -> None:
    suffix = name.removeprefix(plain_name(name))
    (folder / name).write_bytes(PACKERS[suffix](text.encode()))


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("name", ROWS)
def test_compressed_rows_are_those_of_the_plain_file(tmp_path: Path, name: str, suffix: str) -> None:
    put(tmp_path, name + suffix, ROWS[name])
    rows = [row for table in adapters.read(tmp_path / (name + suffix)) for row in table.to_pylist()]
    assert [(row["text"], row["target"], row["problem"]) for row in rows] == [("a", "x", None), ("b", "y", None)]


def test_compressed_conll_is_gone_through_twice(tmp_path: Path) -> None:
    put(tmp_path, "rows.conll.gz", "-DOCSTART- O\n\nin O\nRome B-LOC\n\n-DOCSTART- O\n\nno O\n")
    rows = [row for table in adapters.read(tmp_path, kind="ner") for row in table.to_pylist()]
    assert [(row["text"], row["group"][-10:]) for row in rows] == [("in Rome", "document 1"), ("no", "document 2")]


def test_paths_in_compressed_rows_start_beside_the_file_and_its_name_tells_the_split(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    for split in ("train", "test"):
        put(tmp_path, f"{split}.jsonl.gz", '{"image": "a.png", "label": "x"}\n')
    rows = [row for table in adapters.read(tmp_path) for row in table.to_pylist()]
    assert {row["split"] for row in rows} == {"train", "test"}
    assert {row["image"] for row in rows} == {b"picture"}


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "NO_BOMB_BYTES", 1 << 20)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b" " * (300 << 20)))
    read = 0
    with pytest.raises(DataError, match=r"^rows\.jsonl\.gz: unpacks to more than 200 times its size"):  # noqa: PT012, SIM117
        with open_rows(tmp_path, "rows.jsonl.gz") as file:
            while data := file.read(1 << 20):
                read += len(data)
    assert read < 64 << 20


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_broken_stream_is_an_error_in_words(tmp_path: Path, suffix: str, damage: str) -> None:
    put(tmp_path, f"rows.csv{suffix}", "text,label\n" + "".join(f"thing {n},x\n" for n in range(5000)))
    whole = (tmp_path / f"rows.csv{suffix}").read_bytes()
    (tmp_path / f"rows.csv{suffix}").write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"plain" * 100)
    with pytest.raises(DataError, match=rf"^rows\.csv\{suffix}: cannot be unpacked: "):
        list(adapters.read(tmp_path / f"rows.csv{suffix}"))
