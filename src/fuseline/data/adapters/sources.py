"""Which files a batch consists of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fuseline.errors import DataError


def batch_files(path: Path, endings: Sequence[str]) -> list[Path]:
    """Return a file itself, or the files of a folder with one of `endings`, in the order of their names.

    Links are left out: they may lead out of the batch.

    Raises:
        DataError: the folder holds none.
    """
    if path.is_file():
        return [path]
    found = sorted(f for f in path.rglob("*") if f.suffix.lower() in endings and f.is_file() and not f.is_symlink())
    if not found:
        raise DataError(f"{path}: no file that ends in {' or '.join(endings)} was found")
    return found
