"""Batch formats: one file each, and nothing after them knows in which one a batch came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from fuseline.data.adapters import conll, delimited, image_folder, label_studio, lines, parquet, squad
from fuseline.errors import DataError

Reader = Callable[[Path, Mapping[str, str]], Iterator[pa.Table]]
"""From a file or folder, and the batch's own names for fields, to tables of `drafts.DRAFT`."""

READERS: dict[str, Reader] = {
    "imagefolder": image_folder.read,
    "jsonl": lines.read,
    "csv": delimited.read,
    "parquet": parquet.read,
    "conll": conll.read,
    "label-studio": label_studio.read,
    "squad": squad.read,
}
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
           ".conll": "conll", ".bio": "conll", ".iob": "conll"}  # fmt: skip
DETECTED = {"label-studio": label_studio.fits, "squad": squad.fits, "jsonl": lines.fits, "conll": conll.fits}
"""Formats that a look into a file of another ending tells."""


def read(path: Path, form: str | None, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield a batch's rows.

    Args:
        form: one of READERS; None finds it out.
        columns: field → the batch's own name for it.

    Raises:
        DataError: no format fits, or the batch is broken as a whole.
    """
    if form is not None and form not in READERS:
        raise DataError(f"--format {form!r}: expected one of {', '.join(READERS)}")
    return READERS[form or detect(path)](path, columns)


def detect(path: Path) -> str:
    """Return the format of a file or folder.

    Raises:
        DataError: none fits.
    """
    if path.is_dir():
        return _detect_folder(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file or folder")
    if (form := ENDINGS.get(path.suffix.lower())) is not None:
        return form
    with path.open("rb") as file:
        head = file.read(65_536)
    for form, fits in DETECTED.items():
        if fits(head):
            return form
    raise DataError(f"{path}: its format was not recognised; name it with --format, one of {', '.join(READERS)}")


def _detect_folder(path: Path) -> str:
    """Return `imagefolder`, or the one format whose files a folder holds."""
    if image_folder.fits(path):
        return "imagefolder"
    forms = {detect(file) for file in path.iterdir() if file.is_file() and file.suffix.lower() in ENDINGS}
    if len(forms) == 1:
        return forms.pop()
    raise DataError(
        f"{path}: no metadata.jsonl, metadata.csv or class folders with files were found; name the file to read"
    )
