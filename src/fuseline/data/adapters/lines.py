"""JSON Lines: one object a line, paths in it relative to the file's folder."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from fuseline.data.cells import describe
from fuseline.data.compressed import open_rows
from fuseline.data.files import MAX_RECORD_BYTES, clip, iter_lines, refuse_utf16
from fuseline.data.shards import BATCH_ROWS
from fuseline.data.tabular import BLOCK_BYTES, Batch, Reader, Record, Unread

DECODER = json.JSONDecoder(parse_constant=lambda _: None)
"""NaN and the infinities, which JSON does not have, are read as null."""

Line = tuple[int, bytes | None]


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file; a line that is no object becomes a row with a problem, a blank one none."""
    reader = Reader(batch, name, split)
    with open_rows(batch.root, name) as file:
        refuse_utf16(file.peek(4), name)
        for block in _blocks(iter_lines(file)):
            wheres = [f"{name}, line {number}" for number, _ in block]
            yield from reader.read(parse([line for _, line in block]), wheres)


def _blocks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    block: list[Line] = []
    size = 0
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        block.append((number, line))
        size += len(line or b"")
        if len(block) == BATCH_ROWS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def parse(lines: Sequence[bytes | None]) -> Sequence[Record]:
    """Return each line's object, or what is wrong with it."""
    return _parse_whole(lines) or [_parse_line(line) for line in lines]


def _parse_whole(lines: Sequence[bytes | None]) -> Sequence[Record] | None:
    """Parse sound lines as one array, in half the time; None if one of them is not.

    A mark that nobody can guess stands between them, so that no two broken lines pass for a sound one.
    """
    mark = secrets.token_hex(8)
    try:
        found = DECODER.decode("[" + f',"{mark}",'.encode().join(lines).decode() + "]")  # type: ignore[arg-type]
    except (ValueError, RecursionError, TypeError):  # TypeError: a line is None
        return None
    records = found[::2]
    sound = found[1::2] == [mark] * (len(lines) - 1) and all(type(record) is dict for record in records)
    return records if sound else None


def _parse_line(line: bytes | None) -> Record:
    if line is None:
        return Unread(f"line is longer than {MAX_RECORD_BYTES:,} bytes")
    try:
        record = DECODER.decode(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return Unread("not JSON that can be read: nested too deeply", line)
    except ValueError as error:
        return Unread(f"not JSON: {clip(str(error), 200)}", line)
    if not isinstance(record, dict):
        return Unread(f"line is {describe(record)}; expected an object", line)
    return record
