"""Drafts: rows as an adapter reads them, before anything is known of their worth.

A draft has a shard's columns, each file as plain bytes, and says where it stood in its batch. One that could not
be read, or not whole, says why in `problem` and is kept as far as it could be read: no row of a batch is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fuseline.data.shards import BATCH_ROWS, FILES
from fuseline.data.shards import SCHEMA as SHARD
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE

FIELDS = tuple(name for name in SHARD.names if name != "source")
DRAFT = pa.schema([
    *((name, pa.binary() if name in FILES else pa.string()) for name in (*FIELDS, "where", "problem")),
    (MORE, pa.list_(pa.binary())),
    (BOXES, pa.string()),
])  # fmt: skip

TABLE_BYTES = 64 << 20
"""A table is closed at this size, before it has BATCH_ROWS rows: memory does not grow with the size of pictures."""

Row = Mapping[str, Any]
"""Cells of a draft by column; those that are left out are null."""


def join(*problems: str | None) -> str | None:
    """Join all that is wrong with a row; None if nothing is."""
    return "; ".join(filter(None, problems)) or None


def to_tables(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Yield rows in tables of at most BATCH_ROWS and about TABLE_BYTES."""
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += sum(len(cell) for cell in row.values() if cell is not None)  # no format that comes here has MORE
        if len(held) == BATCH_ROWS or size >= TABLE_BYTES:
            yield to_table(held)
            held, size = [], 0
    if held:
        yield to_table(held)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Build a table of DRAFT."""
    return from_columns({name: [row.get(name) for row in rows] for name in DRAFT.names})


def from_columns(columns: Mapping[str, Sequence[Any] | None]) -> pa.Table:
    """Build a table of DRAFT from cells by column; `where` must be there, any other may be left out.

    A text that no encoding can write (it holds undecodable bytes, or half of a pair of surrogates) is mended with
    U+FFFD, and its row has the problem said.
    """
    rows = len(columns["where"] or ())
    problems = list(columns.get("problem") or [None] * rows)
    arrays: dict[str, pa.Array] = {}
    for field in DRAFT:
        cells = problems if field.name == "problem" else columns.get(field.name)
        if cells is None:
            arrays[field.name] = pa.nulls(rows, field.type)
            continue
        try:
            arrays[field.name] = pa.array(cells, field.type)
        except UnicodeEncodeError:
            arrays[field.name] = pa.array([_mended(cell) for cell in cells], field.type)
            for row, cell in enumerate(cells):
                if field.name in FIELDS and cell is not None and _HALF.search(cell):
                    problems[row] = join(problems[row], f"{field.name} is not UTF-8")
    return pa.Table.from_arrays([arrays[name] for name in DRAFT.names], schema=DRAFT)


_HALF = re.compile(r"[\ud800-\udfff]")


def _mended(cell: str | None) -> str | None:
    return None if cell is None else _HALF.sub("\ufffd", cell)
