"""Tell a batch's format by its files' names and, where those do not tell, by how they begin."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fuseline.data.adapters.conll import TAG
from fuseline.data.adapters.image_folder import METADATA
from fuseline.data.adapters.json_stream import iter_items
from fuseline.data.adapters.lines import parse
from fuseline.data.compressed import open_rows, plain_name
from fuseline.data.files import MEDIA_SUFFIXES, clip, list_files, suffix_of
from fuseline.data.tabular import Unread
from fuseline.errors import DataError

SUFFIXES = {
    ".jsonl": "lines", ".ndjson": "lines", ".csv": "delimited", ".parquet": "parquet", ".pq": "parquet",
    ".conll": "conll", ".iob": "conll", ".iob2": "conll", ".bio": "conll", ".bioes": "conll",
}  # fmt: skip
_DOCUMENTS = re.compile(r"(readme|licen[cs]e|copying|notice|source|changelog|citation)\b", re.IGNORECASE)
_HEAD = 64 << 10
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_KNOWN = (
    "expected JSON Lines, a JSON array of objects, CSV, Parquet, CoNLL, JSON of Label Studio or SQuAD, or a folder of "
    "pictures or sound; name the format (--format) if only the suffix is unusual, or write the rows as JSON Lines"
)


def locate(path: Path) -> tuple[Path, list[str]]:
    """Return a batch's root and its files' names in it; the root of one file is the folder that it lies in.

    Raises:
        DataError: nothing is there.
    """
    if path.is_dir():
        return path, list_files(path)
    if not path.exists():
        raise DataError(f"{path}: not found; expected a batch, as a folder or a file")
    return path.resolve().parent, [path.resolve().name]


def detect(path: Path) -> str:
    """Return the format of a batch.

    Raises:
        DataError: it is none that is known, or several are there.
    """
    root, names = locate(path)
    if not path.is_dir():
        found = format_of(root, names[0])
        if found is None and suffix_of(names[0]) in _COMPRESSED:
            raise DataError(
                f"{path}: is compressed, and what is in it is not known; expected rows such as NAME.jsonl.gz or "
                "NAME.csv.xz (.gz, .bz2 and .xz are unpacked), or a zip or tar archive"
            )
        if found is None:
            raise DataError(f"{path}: of no known format; {_KNOWN}")
        return found
    if any(posixpath.basename(name) in METADATA for name in names):
        return "image_folder"
    formats = {name: found for name in _candidates(names) if (found := format_of(root, name))}
    if len(set(formats.values())) > 1:
        listed = "; ".join(f"{clip(name)}: {found}" for name, found in list(formats.items())[:10])
        raise DataError(f"{path}: files of several formats; name the one that counts ({listed})")
    if formats:
        return next(iter(formats.values()))
    if any(suffix_of(name) in MEDIA_SUFFIXES for name in names):
        return "image_folder"
    listed = ", ".join(map(clip, names[:10])) or "nothing"
    raise DataError(f"{path}: holds no batch of a known format; found {listed}; {_KNOWN}")


def find_files(root: Path, names: Sequence[str], format_: str) -> list[str]:
    """Return, of a batch's files, those of a format.

    Raises:
        DataError: none is.
    """
    if format_ == "image_folder" or len(names) == 1:
        return list(names)
    found = [name for name in _candidates(names) if format_of(root, name) == format_]
    if not found:
        raise DataError(f"{root}: no file of the format {format_}; found {', '.join(map(clip, names[:10])) or 'none'}")
    return found


def _candidates(names: Sequence[str]) -> list[str]:
    """Leave out pictures, sound and what is written for people."""
    return [
        name
        for name in names
        if suffix_of(name) not in (*MEDIA_SUFFIXES, ".md", ".rst", ".pdf", ".html")
        and not _DOCUMENTS.match(posixpath.basename(name))
    ]


def format_of(root: Path, name: str) -> str | None:
    """Return the format of a file; None if it is none that is known.

    Raises:
        DataError: it cannot be opened.
    """
    suffix = suffix_of(plain_name(name))
    if suffix in SUFFIXES:
        return SUFFIXES[suffix] if suffix_of(name) == suffix or SUFFIXES[suffix] != "parquet" else None
    with open_rows(root, name) as file:
        head = file.read(_HEAD)
    if suffix == ".json":
        return _json_format(root, name, head)
    if _looks_like_conll(head):
        return "conll"
    return "delimited" if suffix in (".tsv", ".tab") else None


def _json_format(root: Path, name: str, head: bytes) -> str | None:
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    key = None if first.startswith(b"[") else "data"
    item: Any = {}
    with open_rows(root, name) as file, suppress(DataError):
        item = next(iter_items(file, name, key), ({}, 0))[0]
    if key is None and isinstance(item, dict) and "data" in item and item.keys() & {"annotations", "completions"}:
        return "label_studio"
    if key is None and isinstance(item, dict) and item:
        return "array"
    if key == "data" and isinstance(item, dict) and "paragraphs" in item:
        return "squad"
    line = parse([first.split(b"\n")[0]])[0]
    return None if isinstance(line, Unread) else "lines"


def _looks_like_conll(head: bytes) -> bool:
    """Tell whether the first lines all end in tags, but for comments."""
    lines = head.decode("utf-8", "replace").split("\n")[: None if len(head) < _HEAD else -1]
    full = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    tagged = [re.split(r"[ \t]+", line) for line in islice(full, 50)]
    return bool(tagged) and all(len(cells) > 1 and TAG.fullmatch(cells[-1]) for cells in tagged)
