"""Rows to answer, from files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuseline.errors import DataError
from fuseline.inputs import READERS
from fuseline.inputs.boxes import BOXES, find_error, parse_boxes
from fuseline.inputs.image import MORE, pictures_of
from fuseline.records import files_of
from fuseline.runtime.predictor import Row

BATCH_ROWS = 64
"""Rows that are held in memory at once: pictures may be large."""


def read_parquet(
    split: Path, modalities: Sequence[str], wanted: Sequence[str] | None = None, several: bool = False
) -> Iterator[Row]:
    """Yield the rows of a prepared split, a folder, a batch in memory at a time.

    Args:
        modalities: what is read of each.
        wanted: a row must have one of these; null takes `modalities`.
        several: whether rows are shown with all their pictures, or with the first alone.
    """
    needed = modalities if wanted is None else wanted
    import pyarrow.parquet as pq  # here: serving JSON does not need it

    for file in files_of(split):
        prepared = pq.ParquetFile(file, pre_buffer=False)
        more = [MORE] if several and "image" in modalities and MORE in prepared.schema_arrow.names else []
        placed = [BOXES] if "text" in modalities and BOXES in prepared.schema_arrow.names else []
        for batch in prepared.iter_batches(batch_size=BATCH_ROWS, columns=[*modalities, *more, *placed]):
            for row in batch.to_pylist():
                if any(row[name] is not None for name in needed):
                    pictures = {"image": pictures_of(row)} if more else {}
                    values = {name: row[name] for name in modalities} | pictures
                    given = {name: v["bytes"] if isinstance(v, dict) else v for name, v in values.items()}
                    yield Row(**given, boxes=parse_boxes(row.get(BOXES)))


def read_jsonl(file: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield each line of a JSON Lines file as it stands, and as a row.

    A line is an object with any of `text`, `image` and `audio`, the last two as paths relative to the file's folder,
    `image` as a list of paths where a row has several, and `boxes` where it is known where words stand; other keys
    pass.

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
    given["image"] = None if given["image"] == [] else given["image"]
    for key, value in given.items():
        parts = value if key == "image" and isinstance(value, list) else [value]
        if value is not None and not all(isinstance(part, str) and part.strip() for part in parts):
            what = "a non-empty string, a list of these," if key == "image" else "a non-empty string"
            raise DataError(f"{where}: {key} must be {what} or left out, found {value!r}")
    if all(value is None for value in given.values()):
        raise DataError(f"{where}: none of {', '.join(given)} is given")
    text = given.pop("text")
    if text is not None and not _is_unicode(text):
        raise DataError(f"{where}: text holds half a surrogate pair, which is no character")
    boxes = document.get(BOXES) or ()
    if boxes and (why := find_error(boxes, text)):
        raise DataError(f"{where}: {why}")
    files = {key: _read_files(folder, path, key, where) for key, path in given.items() if path is not None}
    return document, Row(text, **files, boxes=boxes, where=where)


def _read_files(folder: Path, given: str | list[str], key: str, where: str) -> Any:
    if isinstance(given, list):
        return [_read_file(folder / path, key, where) for path in given]
    return _read_file(folder / given, key, where)


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
