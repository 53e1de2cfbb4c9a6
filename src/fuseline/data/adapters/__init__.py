"""Batches in the formats that people have them in, read as drafts: one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from fuseline.data.adapters import array, conll, delimited, image_folder, label_studio, lines, parquet, squad
from fuseline.data.adapters.detect import detect, find_files, locate
from fuseline.data.adapters.names import Names
from fuseline.data.adapters.splits import splits_of
from fuseline.data.columns import Columns
from fuseline.data.tabular import Batch
from fuseline.errors import DataError

__all__ = ["FORMATS", "detect", "read"]

_READERS: Mapping[str, Callable[[Batch, str, str | None], Iterator[pa.Table]]] = {
    "array": array.read,
    "conll": conll.read,
    "delimited": delimited.read,
    "label_studio": label_studio.read,
    "lines": lines.read,
    "parquet": parquet.read,
    "squad": squad.read,
}
_GIVING_PATHS = ("array", "delimited", "lines", "parquet")
FORMATS = ("image_folder", *_READERS)


def read(
    path: Path,
    format_: str | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str = "classification",
    files: Path | None = None,
    names_give: str | None = None,
) -> Iterator[pa.Table]:
    """Read a batch, a folder or a file, as tables of `drafts.DRAFT`.

    Args:
        format_: one of FORMATS; None leaves it to `detect`.
        columns: fields and the batch's columns that give them, where `columns.ALIASES` do not tell.
        kind: the problem, as `task.kind` in params.yaml.
        names_give: pattern of the files' names, such as "{target}_{group}_{}.wav", in a folder without metadata.
        files: a folder that paths in rows start from, where that is not the batch's own.

    Raises:
        DataError: at once or while it is read: the batch as a whole cannot be taken. What is wrong with one row
            becomes that row's `problem`.
    """
    if format_ is not None and format_ not in FORMATS:
        raise DataError(f"format {format_!r} is not known; expected of {', '.join(FORMATS)}")
    root, names = locate(path)
    found = format_ or detect(path)
    if files is not None and not files.is_dir():
        raise DataError(f"{files}: not found, or no folder; expected the one that paths in the batch start from")
    if files is not None and found not in _GIVING_PATHS:
        raise DataError(
            f"a folder of files was named ({files}), but {found} gives no paths; expected of {', '.join(_GIVING_PATHS)}"
        )
    batch = Batch(root, Columns(columns or {}), kind, files=files)
    if found == "image_folder":
        return image_folder.read(batch, names, None if names_give is None else Names.parse(names_give))
    if names_give is not None:
        raise DataError(f"a pattern of names was given ({names_give}), but this is a batch of {found}, whose rows tell")
    return _read_files(batch, find_files(root, names, found), found)


def _read_files(batch: Batch, names: list[str], format_: str) -> Iterator[pa.Table]:
    for name, split in zip(names, splits_of(names), strict=True):
        yield from _READERS[format_](batch, name, split)
