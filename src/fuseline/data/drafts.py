"""Drafts: the rows of a batch as an adapter reads them, before anything is known of their worth.

A row that cannot be read whole is kept as far as it goes, with the problem beside it: it goes to quarantine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fuseline.data.files import AUDIOS, read_file
from fuseline.data.shards import BATCH_ROWS, FILES, SCHEMA
from fuseline.errors import DataError

DRAFT = pa.schema([
    *(pa.field(name, pa.binary() if name in FILES else pa.string()) for name in SCHEMA.names if name != "source"),
    pa.field("where", pa.string()),  # for people: file and line
    pa.field("problem", pa.string()),  # why the row could not be read whole; null where it could
])  # fmt: skip
FIELDS = tuple(name for name in DRAFT.names if name not in ("meta", "where", "problem"))
"""What a column of a batch can stand for; any other column is kept in meta."""
NAMES = {
    "id": ("id", "key", "uid"),
    "group": ("group", "group_id"),
    "text": ("text", "sentence", "caption"),
    "text_pair": ("text_pair", "text2", "sentence2"),
    "image": ("image", "file_name", "image_path", "image_file_name"),
    "image_pair": ("image_pair", "image_pair_file_name"),
    "audio": ("audio", "audio_path", "audio_file_name"),
    "audio_pair": ("audio_pair",),
    "target": ("target", "label", "labels"),
    "split": ("split",),
}
"""Names by which each field is known without being told, the surest first."""
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "test": "test", "testing": "test"}  # fmt: skip
MISSING = ("", "nan", "none", "null", "<na>")
"""What stands for nothing, in any case, where a cell is text."""
BATCH_BYTES = 64 << 20
"""Bytes of a table beyond which the next row begins another one: memory stays bounded with large files."""
MAX_CHARS = 16 << 20
"""Characters of one text beyond which it is not even looked at."""

Row = dict[str, Any]
"""Fields of DRAFT; files as bytes, meta as a dict."""


def to_tables(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Pack rows into tables of DRAFT, bounded in rows and bytes."""
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += sum(len(row.get(name) or b"") for name in FILES) + len(row.get("text") or "")
        if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
            yield _to_table(held)
            held, size = [], 0
    if held:
        yield _to_table(held)


def _to_table(rows: list[Row]) -> pa.Table:
    columns = {
        name: [_clean(row.get(name)) if name not in FILES else row.get(name) for row in rows]
        for name in DRAFT.names
        if name != "meta"
    }
    columns["meta"] = [_dump(row.get("meta")) for row in rows]
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in DRAFT}, schema=DRAFT)


def _clean(value: Any) -> str | None:
    """Return a string that Arrow can hold: half a surrogate pair, or a byte that was no UTF-8, shows as a mark."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def _dump(meta: Mapping[str, Any] | None) -> str | None:
    if not meta:
        return None
    return _clean(json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str))


class Columns:
    """Which of a batch's columns stands for which field.

    Args:
        found: the batch's column names.
        given: field → column, as the user says; the others are found by NAMES.

    Raises:
        DataError: a field or column that is named does not exist.
    """

    def __init__(self, found: Iterable[str], given: Mapping[str, str], where: str) -> None:
        found = list(found)
        if unknown := sorted(set(given) - set(FIELDS)):
            raise DataError(f"--column: there is no field {unknown[0]!r}; expected one of {', '.join(FIELDS)}")
        if missing := sorted(set(given.values()) - set(found)):
            raise DataError(f"{where}: there is no column {missing[0]!r}; found {', '.join(found) or 'none'}")
        taken = set(given.values())
        self.of = dict(given)
        for field, names in NAMES.items():
            if field not in self.of and (name := next((n for n in names if n in found and n not in taken), None)):
                self.of[field] = name
                taken.add(name)
        self.rest = [name for name in found if name not in taken]


def to_row(record: Mapping[str, Any], columns: Columns, where: str, root: Path, base: Path) -> Row:
    """Turn one record of a batch into a draft.

    Args:
        root: folder that files must lie in.
        base: folder that the record's paths are relative to.
    """
    problems: list[str] = []
    row: Row = {"where": where}
    for field, name in columns.of.items():
        value = record.get(name)
        if _is_missing(value):
            continue
        if field == "image" and isinstance(value, str) and Path(value).suffix.lower() in AUDIOS:
            field = "audio"  # an AudioFolder's file_name
        try:
            row[field] = read_file(root, value, base) if field in FILES else _text(field, value)
        except DataError as error:
            problems.append(f"{field}: {error}")
    row["meta"] = {name: record[name] for name in columns.rest if not _is_missing(record.get(name))}
    if problems:
        row["problem"] = "; ".join(problems)
    return row


def _text(field: str, value: Any) -> str:
    if isinstance(value, str):
        if len(value) > MAX_CHARS:
            raise DataError(f"{len(value):,} characters; more than {MAX_CHARS:,} are not read")
        if field == "split":
            return SPLITS.get(value.lower(), value)
        if any("\ud800" <= char <= "\udfff" for char in value) if not value.isascii() else False:
            raise DataError("bytes that are not UTF-8, or half a surrogate pair")
        return value
    if field == "target" and isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if field in ("text", "text_pair") and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return _text(field, " ".join(value))  # sentences
    if isinstance(value, bool | int | float):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    raise DataError(f"expected a text, found {type(value).__name__}")


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def missing_to_null(column: pa.Array) -> pa.Array:
    """Make the words of MISSING null, of a whole column of strings."""
    return pc.if_else(
        pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), value_set=pa.array(MISSING)), None, column
    )
