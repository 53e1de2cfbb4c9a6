"""Batches in the formats that people have them in, read as drafts: one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from fuseline.data.adapters import conll, delimited, image_folder, label_studio, lines, parquet, squad
from fuseline.data.adapters.detect import detect, find_files, locate
from fuseline.data.adapters.splits import splits_of
from fuseline.data.columns import Columns
from fuseline.data.tabular import Batch
from fuseline.errors import DataError

__all__ = ["FORMATS", "detect", "read"]

_READERS: Mapping[str, Callable[[Batch, str, str | None], Iterator[pa.Table]]] = {
    "conll": conll.read,
    "delimited": delimited.read,
    "label_studio": label_studio.read,
    "lines": lines.read,
    "parquet": parquet.read,
    "squad": squad.read,
}
FORMATS = ("image_folder", *_READERS)


def read(
    path: Path, format_: str | None = None, columns: Mapping[str, str] | None = None, kind: str = "classification"
) -> Iterator[pa.Table]:
    """Read a batch, a folder or a file, as tables of `drafts.DRAFT`.

    Args:
        format_: one of FORMATS; None leaves it to `detect`.
        columns: fields and the batch's columns that give them, where `columns.ALIASES` do not tell.
        kind: the problem, as `task.kind` in params.yaml.

    Raises:
        DataError: at once or while it is read: the batch as a whole cannot be taken. What is wrong with one row
            becomes that row's `problem`.
    """
    if format_ is not None and format_ not in FORMATS:
        raise DataError(f"format {format_!r} is not known; expected of {', '.join(FORMATS)}")
    root, names = locate(path)
    found = format_ or detect(path)
    batch = Batch(root, Columns(columns or {}), kind)
    if found == "image_folder":
        return image_folder.read(batch, names)
    return _read_files(batch, find_files(root, names, found), found)


def _read_files(batch: Batch, names: list[str], format_: str) -> Iterator[pa.Table]:
    for name, split in zip(names, splits_of(names), strict=True):
        yield from _READERS[format_](batch, name, split)
