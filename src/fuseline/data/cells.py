"""One cell of a batch, of whatever type its format knows, to what a draft holds."""

from __future__ import annotations

import json
import math
import posixpath
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuseline.data.files import MAX_FILE_BYTES, MAX_RECORD_BYTES, clip, decode_data_uri, read_file
from fuseline.data.urls import is_url
from fuseline.errors import DataError

# Each function's DataError goes on from the field's name: "text" "is a list; expected a string".

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Names in use for the three splits."""

_NO_TARGET = frozenset({"", "nan", "NaN", "NAN"})


def _plain(value: Any) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, default=_plain).encode


def to_json(value: Any) -> str:
    """Write a value as JSON.

    What JSON has no number for becomes null, bytes become their number, any other type what Python prints.

    Raises:
        DataError: it is nested too deeply.
    """
    try:
        try:
            return _ENCODE(value)
        except ValueError:
            return _ENCODE(_finite(value))
    except RecursionError:
        raise DataError("is nested too deeply") from None


def to_jsons(values: Sequence[Any]) -> list[str] | None:
    """Write many values at once, in half the time of to_json; None if one of them needs more care.

    They are told apart by a mark that nobody can guess.
    """
    mark = secrets.token_hex(8)
    try:
        return _ENCODE([part for value in values for part in (value, mark)] + [0])[1:].split(f', "{mark}", ')[:-1]
    except (ValueError, RecursionError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing: null or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_text(value: Any) -> str | None:
    """Return a text; a list of strings is joined with spaces.

    Raises:
        DataError: it is something else than a text or a number.
    """
    if isinstance(value, str):
        if len(value) > MAX_RECORD_BYTES:
            raise DataError(f"has {len(value):,} characters; at most {MAX_RECORD_BYTES:,} are read")
        return value
    if is_missing(value):
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if isinstance(value, dict | list):
        raise DataError(f"is {describe(value)}; expected a string")
    return _written(value)


def _written(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_key(value: Any) -> str | None:
    """Return an id or a group; one that is empty is none."""
    return to_text(value) or None


def to_target(value: Any) -> str:
    """Return a target: a text as it is, anything else as JSON.

    Raises:
        DataError: it is missing: null, blank or not a number.
    """
    if is_missing(value) or (isinstance(value, str) and (value in _NO_TARGET or value.isspace())):
        raise DataError("is missing")
    if isinstance(value, str):
        return to_text(value) or ""
    return to_json(value) if isinstance(value, dict | list) else _written(value)


def to_boxes(value: Any) -> str | None:
    """Return boxes as JSON, whatever is wrong with them: the contract says; None where there are none."""
    if is_missing(value) or value in ("", []):
        return None
    return value if isinstance(value, str) else to_json(value)


def to_split(value: Any) -> str | None:
    """Return train, val or test, or None where no split is given.

    Raises:
        DataError: it is something else.
    """
    if value is None or value == "":
        return None
    try:
        return SPLIT_NAMES[value.strip().lower()]
    except (KeyError, AttributeError):
        raise DataError(f"{clip(str(value), 40)!r} is not train, val or test") from None


def to_list(value: Any) -> list[Any]:
    """Return the pictures of a cell, one or a list of them; none where it is missing or the list is empty."""
    if isinstance(value, list):
        return value
    return [] if is_missing(value) or value == "" else [value]


def to_file(value: Any, root: Path, base: str) -> bytes | None:
    """Return a file's bytes: given as they are, as a `data:` URI, or as a path relative to `base` inside `root`.

    Raises:
        DataError: it is something else, or cannot be read.
    """
    if isinstance(value, dict):  # as Hugging Face datasets keeps one
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if is_missing(value) or value == "":
        return None
    if isinstance(value, bytes):
        if len(value) > MAX_FILE_BYTES:
            raise DataError(f"has {len(value):,} bytes; at most {MAX_FILE_BYTES:,} are read")
        return value
    if not isinstance(value, str):
        raise DataError(f"is {describe(value)}; expected a path inside the batch")
    if value[:5].lower() == "data:":
        return decode_data_uri(value)
    return read_file(root, value if value.startswith("/") or is_url(value) else posixpath.join(base, value))


def describe(value: Any) -> str:
    """Name a value's type in JSON's words."""
    names: Sequence[tuple[Any, str]] = (
        (bool, "a boolean"), (int | float, "a number"), (str, "a string"), (list, "a list"), (dict, "an object"),
        (type(None), "null"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), f"of type {type(value).__name__}")
