"""Rows to answer, from files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuseline.errors import DataError
from fuseline.records import files_of
from fuseline.runtime.predictor import Row

BATCH_ROWS = 64
"""Rows that are held in memory at once: pictures may be large."""


def read_parquet(split: Path, modalities: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a prepared split, a folder, that have any of `modalities`, a batch in memory at a time."""
    import pyarrow.parquet as pq  # here: serving JSON does not need it

    for file in files_of(split):
        for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(
            batch_size=BATCH_ROWS, columns=["text", "image"]
        ):
            for row in batch.to_pylist():
                if any(row[name] is not None for name in modalities):
                    yield Row(row["text"], row["image"] and row["image"]["bytes"])


def read_jsonl(file: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield each line of a JSON Lines file as it stands, and as a row.

    A line is an object with `text`, `image` (a path, relative to the file's folder) or both; other keys pass.

    Raises:
        DataError: naming file and line, for anything else.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, f"{file}, line {number}", file.parent)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8: {error}") from error


def _parse(line: str, where: str, folder: Path) -> tuple[dict[str, Any], Row]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(
            f'{where}: expected an object such as {{"text": "…", "image": "a.png"}}, found {line.strip()[:60]}'
        )
    text, image = document.get("text"), document.get("image")
    for key, value in (("text", text), ("image", image)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise DataError(f"{where}: {key} must be a non-empty string or left out, found {value!r}")
    if text is None and image is None:
        raise DataError(f"{where}: neither text nor image is given")
    if text is not None and not _is_unicode(text):
        raise DataError(f"{where}: text holds half a surrogate pair, which is no character")
    return document, Row(text, None if image is None else _read_image(folder / image, where), where)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_image(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: image {path} cannot be read ({why})") from error
