"""CSV and TSV (RFC 4180): a header, then a row a record; paths in it relative to the file's folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from fuseline.data.compressed import open_rows, plain_name
from fuseline.data.files import MAX_RECORD_BYTES, clip, iter_lines, refuse_utf16, suffix_of
from fuseline.data.shards import BATCH_ROWS
from fuseline.data.tabular import BLOCK_BYTES, Batch, Reader, Record, Unread
from fuseline.errors import DataError

MAX_RECORD_LINES = 1000
MAX_SPANNING_BYTES = 4 << 20
"""A record that reaches over more lines, or more bytes on several, has a quote that is never closed."""
MAX_STRAY_QUOTES = 1000
"""Each costs reading some lines twice; a file with more is not quoted as CSV is."""
DELIMITERS = (",", ";", "\t", "|")

Cells = list[str]
Found = tuple[int, Cells | Unread]
"""Line number, and cells or what is wrong with them."""


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file; a record that breaks the rules becomes a row with a problem, a blank line none.

    Raises:
        DataError: there is no header, it names a column twice, or quotes are used in some other way.
    """
    reader = Reader(batch, name, split)
    with open_rows(batch.root, name) as file:
        refuse_utf16(file.peek(4), name)
        lines = _Lines(iter_lines(file), name)
        header, delimiter = _header(lines, name)
        reader.resolve(header)
        for block in _blocks(_records(lines, delimiter)):
            wheres = [f"{name}, line {number}" for number, _ in block]
            problems = [_miscounted(header, found) for _, found in block]
            yield from reader.read([_named(header, found) for _, found in block], wheres, problems)


class _Lines(Iterator[str]):
    """Lines for csv.reader, which can be given back where a quote turns out to be stray."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]], name: str) -> None:
        self.lines, self.name = lines, name
        self.held: list[tuple[int, bytes | None]] = []
        """Lines of the record that is being read."""
        self.back: list[tuple[int, bytes | None]] = []
        """Lines to read again, the next one last."""
        self.size = 0

    def __next__(self) -> str:
        number, line = self.back.pop() if self.back else next(self.lines)
        self.held.append((number, line))
        if line is None:
            raise csv.Error(f"line is longer than {MAX_RECORD_BYTES:,} bytes")
        self.size += len(line)
        if len(self.held) > 1 and (len(self.held) > MAX_RECORD_LINES or self.size > MAX_SPANNING_BYTES):
            raise csv.Error("a quote is opened and not closed")
        return line.decode("utf-8", "surrogateescape")

    def start(self) -> int:
        """Forget the record that was read; return the number of its first line."""
        number = self.held[0][0]
        self.held, self.size = [], 0
        return number

    def give_back(self) -> int:
        """Give back all lines but the first of a record that could not be read; return the first's number."""
        self.back += reversed(self.held[1:])
        return self.start()


def _header(lines: _Lines, name: str) -> tuple[Cells, str]:
    """Read the header; the delimiter is the suffix's, or else that which makes most columns of it."""
    first = ""
    while not first.strip():
        try:
            first = next(lines)
        except StopIteration:
            raise DataError(f"{name}: empty; expected a header") from None
        except csv.Error as error:
            raise DataError(f"{name}: header: {error}") from None
    lines.back.append(lines.held[-1])
    lines.start()
    usual = "\t" if suffix_of(plain_name(name)) in (".tsv", ".tab") else ","
    delimiter = usual if usual in first else max((usual, *DELIMITERS), key=first.count)
    _, found = next(_records(lines, delimiter))
    if isinstance(found, Unread):
        raise DataError(f"{name}: header: {found.problem}")
    header = [column.strip() for column in found]
    if twice := [column for column in dict.fromkeys(header) if header.count(column) > 1]:
        raise DataError(f"{name}: header names {clip(twice[0])!r} twice")
    return header, delimiter


def _records(lines: _Lines, delimiter: str) -> Iterator[Found]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    stray = 0
    while True:
        try:
            for found in csv.reader(lines, delimiter=delimiter, strict=True):
                number = lines.start()
                if found:
                    yield number, found
            return
        except csv.Error as error:
            stray += 1
            if stray > MAX_STRAY_QUOTES:
                raise DataError(
                    f"{lines.name}: more than {MAX_STRAY_QUOTES:,} records break the rules of CSV (RFC 4180), the last "
                    f"one on line {lines.held[0][0]} ({error}); quote cells that hold quotes, and double those"
                ) from None
            problem = Unread(f"not CSV: {error}", lines.held[0][1])
            yield lines.give_back(), problem


def _blocks(records: Iterable[Found]) -> Iterator[list[Found]]:
    block: list[Found] = []
    size = 0
    for number, found in records:
        block.append((number, found))
        size += 0 if isinstance(found, Unread) else sum(map(len, found))
        if len(block) == BATCH_ROWS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _named(header: Cells, found: Cells | Unread) -> Record:
    if isinstance(found, Unread):
        return found
    record: dict[str, Any] = dict(zip(header, [cell or None for cell in found], strict=False))
    return record if len(found) <= len(header) else record | {"more cells": found[len(header) :]}


def _miscounted(header: Cells, found: Cells | Unread) -> str | None:
    if isinstance(found, Unread) or len(found) == len(header):
        return None
    return f"{len(found)} cells; expected {len(header)}, as in the header"
