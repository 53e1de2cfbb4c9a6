"""CSV and TSV with a header line, quoted as RFC 4180 says, in UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuseline.data.adapters.sources import batch_files
from fuseline.data.drafts import MAX_CHARS, Columns, Row, to_row, to_tables
from fuseline.errors import DataError


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the rows of a file, or of all `.csv` and `.tsv` files of a folder."""
    for file in batch_files(path, (".csv", ".tsv")):
        yield from read_file(file, columns, file.parent)


def read_file(file: Path, columns: Mapping[str, str], root: Path, **fixed: Any) -> Iterator[pa.Table]:
    """Yield the rows of one file; arguments as of `lines.read_file`."""
    yield from to_tables(fixed | row for row in _rows(file, columns, root))


def _rows(file: Path, columns: Mapping[str, str], root: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CHARS)
    # Bytes that are no UTF-8 come through as half surrogate pairs, and to_row refuses those in their own row.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as source:
        reader = csv.reader(source, delimiter=_delimiter(file))
        header = _next(reader)
        if not isinstance(header, list):
            raise DataError(f"{file}: expected a header line with column names, found {header or 'nothing'}")
        known = Columns(header, columns, str(file))
        while (record := _next(reader)) is not None:
            where = f"{file.name}, line {reader.line_num}"
            if isinstance(record, str):
                yield {"where": where, "problem": record}
            elif record and len(record) != len(header):
                yield {"where": where, "problem": f"{len(record)} cells; expected {len(header)} as in the header",
                       "meta": {"cells": record[:50]}}  # fmt: skip
            elif record:
                yield to_row(dict(zip(header, record, strict=True)), known, where, root, file.parent)


def _next(reader: Any) -> list[str] | str | None:
    """Return the next record, what is wrong with it, or None at the end."""
    try:
        return list(next(reader))
    except StopIteration:
        return None
    except csv.Error as error:
        return f"not CSV: {error}"


def _delimiter(file: Path) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as source:
        head = source.readline(65_536)
    return max(",;\t|", key=head.count)
