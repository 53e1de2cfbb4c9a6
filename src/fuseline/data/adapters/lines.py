"""JSON Lines: one object a row, with paths to files relative to it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from fuseline.data.adapters.sources import batch_files
from fuseline.data.drafts import DRAFT, MAX_CHARS, Columns, Row, missing_to_null, to_row, to_tables
from fuseline.data.shards import BATCH_ROWS, FILES
from fuseline.errors import DataError

BLOCK = 4 << 20
"""Bytes that are parsed at once."""
MAX_LINE = 4 * MAX_CHARS
"""Bytes of a line beyond which it is passed over."""


def fits(head: bytes) -> bool:
    """Tell whether the beginning of a file looks like JSON Lines."""
    first = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the rows of a file, or of all `.jsonl` files of a folder."""
    for file in batch_files(path, (".jsonl", ".ndjson")):
        yield from read_file(file, columns, file.parent)


def read_file(file: Path, columns: Mapping[str, str], root: Path, **fixed: Any) -> Iterator[pa.Table]:
    """Yield the rows of one file.

    Args:
        root: folder that paths must stay in; they are relative to the file's own.
        fixed: fields that all its rows have where they say nothing else.
    """
    with file.open("rb") as source:
        number = 1
        for block, lines in _blocks(source):
            table = _fast(block, lines, columns, f"{file.name}, line", number)
            if table is not None and not fixed:
                yield from (table.slice(start, BATCH_ROWS) for start in range(0, table.num_rows, BATCH_ROWS))
            else:
                yield from to_tables(fixed | row for row in _slow(block, columns, file, root, number))
            number += lines


def _blocks(source: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines, some megabytes at a time; of a line that is too long only its beginning."""
    while block := source.read(BLOCK):
        end = source.readline(MAX_LINE)
        block += end
        if len(end) == MAX_LINE and not end.endswith(b"\n"):
            while (more := source.readline(BLOCK)) and not more.endswith(b"\n"):
                pass
        yield block, block.count(b"\n") + (not block.endswith(b"\n"))


def _fast(block: bytes, lines: int, columns: Mapping[str, str], where: str, number: int) -> pa.Table | None:
    """Parse a block as a whole; None where it has anything that needs a look at each line.

    That is: broken lines, files, columns of other types than text and numbers, or columns for meta.
    """
    try:
        table = pa.json.read_json(io.BytesIO(block), pa.json.ReadOptions(block_size=2 * len(block)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if table.num_rows != lines or any(columns.get(f) not in (None, *table.column_names) for f in columns):
        return None
    known = Columns(table.column_names, columns, where)
    plain = all(pa.types.is_string(kind) or pa.types.is_integer(kind) for kind in table.schema.types)
    if known.rest or not plain or "split" in known.of or any(name in FILES for name in known.of):
        return None
    cells = {field: missing_to_null(table[name].cast(pa.string())) for field, name in known.of.items()}
    if any((pc.max(pc.utf8_length(column)).as_py() or 0) > MAX_CHARS for column in cells.values()):
        return None
    cells["where"] = pa.array([f"{where} {n}" for n in range(number, number + lines)])
    return pa.table(
        [cells[f.name] if f.name in cells else pa.nulls(lines, f.type) for f in DRAFT], schema=DRAFT
    ).combine_chunks()


def _slow(block: bytes, columns: Mapping[str, str], file: Path, root: Path, number: int) -> Iterator[Row]:
    lines = block.split(b"\n")
    for line in lines[:-1] if not lines[-1] else lines:
        where = f"{file.name}, line {number}"
        number += 1
        if not line.strip():
            continue
        yield _parse(line, columns, where, file, root)


def _parse(line: bytes, columns: Mapping[str, str], where: str, file: Path, root: Path) -> Row:
    if len(line) > MAX_LINE:
        return {"where": where, "problem": f"more than {MAX_LINE:,} bytes in one line; it was not read"}
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {"where": where, "problem": f"not JSON: {error}", "meta": {"line": line[:200].decode(errors="replace")}}
    if not isinstance(record, dict):
        return {"where": where, "problem": "not a JSON object", "meta": {"line": line[:200].decode(errors="replace")}}
    try:
        known = Columns(record, {f: n for f, n in columns.items() if n in record}, where)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    return to_row(record, known, where, root, file.parent)
