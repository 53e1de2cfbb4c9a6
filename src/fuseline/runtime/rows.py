"""Rows to answer, from files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuseline.errors import DataError
from fuseline.inputs import READERS
from fuseline.records import files_of
from fuseline.runtime.predictor import Row

BATCH_ROWS = 64
"""Rows that are held in memory at once: pictures may be large."""


def read_parquet(split: Path, modalities: Sequence[str], wanted: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a prepared split, a folder, a batch in memory at a time.

    Args:
        modalities: what is read of each.
        wanted: a row must have one of these; null takes `modalities`.
    """
    needed = modalities if wanted is None else wanted
    import pyarrow.parquet as pq  # here: serving JSON does not need it

    for file in files_of(split):
        for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(
            batch_size=BATCH_ROWS, columns=list(modalities)
        ):
            for row in batch.to_pylist():
                if any(row[name] is not None for name in needed):
                    yield Row(
                        **{name: value["bytes"] if isinstance(value, dict) else value for name, value in row.items()}
                    )


def read_jsonl(file: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield each line of a JSON Lines file as it stands, and as a row.

    A line is an object with any of `text`, `image` and `audio`, the last two as paths relative to the file's folder;
    other keys pass.

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
    given = {key: document.get(key) for key in READERS}
    for key, value in given.items():
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise DataError(f"{where}: {key} must be a non-empty string or left out, found {value!r}")
    if all(value is None for value in given.values()):
        raise DataError(f"{where}: none of {', '.join(given)} is given")
    text = given.pop("text")
    if text is not None and not _is_unicode(text):
        raise DataError(f"{where}: text holds half a surrogate pair, which is no character")
    files = {key: _read_file(folder / path, key, where) for key, path in given.items() if path is not None}
    return document, Row(text, **files, where=where)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_file(path: Path, key: str, where: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: {key} {path} cannot be read ({why})") from error
