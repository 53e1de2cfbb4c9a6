"""One question, and what may be given in its place."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuseline.errors import DataError
from fuseline.inputs import READERS
from fuseline.inputs.boxes import BOXES, Stretch, find_error, parse_boxes
from fuseline.inputs.image import Shown

ABSENT = ("NAType", "NaTType")
"""Names of pandas' types of what is missing: serving does not import pandas."""
EXPECTED = {
    "text": "a non-empty string or left out",
    "image": "a non-empty path, the bytes of a file, a PIL picture, an array, a list of these, or left out",
    "audio": "a non-empty path, the bytes of a file, or left out",
}


@dataclass(frozen=True)
class Row:
    """One question: a text, a picture or a list of them, an encoded recording, or several of these."""

    text: str | None = None
    image: Shown | Sequence[Shown] | None = None
    """Encoded, or decoded by PIL or to an array. An empty list is no picture."""
    audio: bytes | None = None
    boxes: Sequence[Stretch] = ()
    """Where stretches of the text stand in the picture, as `inputs.boxes.find_error` lets pass."""
    where: str = field(default="a row", compare=False)
    """Where it comes from, for errors."""


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing: None, NaN, pandas' NA."""
    return value is None or type(value).__name__ in ABSENT or (isinstance(value, float) and math.isnan(value))


def make_row(given: Mapping[str, Any], where: str, folder: Path = Path()) -> Row:
    """Make a row of `text`, `image`, `audio` and `boxes`; other keys pass.

    Args:
        where: what errors call it.
        folder: what paths are relative to.

    Raises:
        DataError: a value is none of what is expected, or a file cannot be read.
    """
    values = {key: None if is_missing(given.get(key)) else given.get(key) for key in READERS}
    values["image"] = None if isinstance(values["image"], list | tuple) and not values["image"] else values["image"]
    if all(value is None for value in values.values()):
        raise DataError(f"{where}: none of {', '.join(values)} is given")
    text = values["text"]
    if text is not None:
        _check_text(text, where)
    boxes = _boxes_of(given.get(BOXES), text, where)
    image, audio = (_files_of(values[key], key, where, folder) for key in ("image", "audio"))
    return Row(text, image, audio, boxes, where)


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: text must be {EXPECTED['text']}, found {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: text holds half a surrogate pair, which is no character") from None


def _boxes_of(given: Any, text: str | None, where: str) -> Sequence[Stretch]:
    if is_missing(given):
        return ()
    try:
        boxes = parse_boxes(given) if isinstance(given, str) and given.lstrip().startswith("[") else given
    except ValueError as error:
        raise DataError(f"{where}: {BOXES} is no JSON: {error}") from error
    if boxes and (why := find_error(boxes, text)):
        raise DataError(f"{where}: {why}")
    return boxes or ()


def _files_of(value: Any, key: str, where: str, folder: Path) -> Any:
    if value is None:
        return None
    if key == "image" and isinstance(value, list | tuple):
        return [_file_of(part, key, where, folder) for part in value]
    return _file_of(value, key, where, folder)


def _file_of(value: Any, key: str, where: str, folder: Path) -> Any:
    """Return a file's bytes, or a picture that is decoded already."""
    if isinstance(value, Mapping) and {"bytes", "path"} >= set(value):  # as Hugging Face datasets keeps files
        value = value["path"] if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview) and len(value):
        return bytes(value)
    if isinstance(value, str | os.PathLike) and str(value).strip():
        return _read_file(folder / value, key, where)
    if key == "image" and isinstance(value, Shown) and not isinstance(value, bytes):
        return value
    raise DataError(f"{where}: {key} must be {EXPECTED[key]}, found {str(value)[:60]!r} of {type(value).__name__}")


def _read_file(path: Path, key: str, where: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: {key} {path} cannot be read ({why})") from error
