"""Folders as Hugging Face's ImageFolder and AudioFolder take them.

Files beside `metadata.jsonl` or `metadata.csv`, or in folders named after their label; both may stand in folders
named after a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from fuseline.data.adapters import delimited, lines
from fuseline.data.drafts import SPLITS, Row, to_tables
from fuseline.data.files import AUDIOS, IMAGES, read_file
from fuseline.errors import DataError

METADATA = {"metadata.jsonl": lines.read_file, "metadata.csv": delimited.read_file}


def fits(path: Path) -> bool:
    """Tell whether a folder looks like this."""
    return bool(_metadata(path)) or any(_class_files(path))


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the rows of a folder."""
    if found := _metadata(path):
        for file in found:
            split = _split_of(file.relative_to(path).parts[:-1])
            fixed = {} if split is None else {"split": split}
            yield from METADATA[file.name](file, columns, path, **fixed)
        return
    yield from to_tables(_class_rows(path))


def _metadata(path: Path) -> list[Path]:
    return sorted(f for name in METADATA for f in path.rglob(name) if f.is_file() and not f.is_symlink())


def _split_of(parts: tuple[str, ...]) -> str | None:
    return next((SPLITS[part.lower()] for part in parts if part.lower() in SPLITS), None)


def _class_files(path: Path) -> Iterator[Path]:
    """Yield the files that lie in a folder of the batch, links too: they are problems, not passed over."""
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in IMAGES | AUDIOS and file.parent != path and not file.is_dir():
            yield file


def _class_rows(path: Path) -> Iterator[Row]:
    for file in _class_files(path):
        name = file.relative_to(path)
        folders = name.parts[:-1]
        split = _split_of(folders)
        labels = [part for part in folders if part.lower() not in SPLITS]
        row: Row = {"where": str(name), "id": str(name), "split": split, "target": labels[-1] if labels else None}
        try:
            row["image" if file.suffix.lower() in IMAGES else "audio"] = read_file(path, str(name), path)
        except DataError as error:
            row["problem"] = str(error)
        yield row
