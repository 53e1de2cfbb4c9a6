"""JSON: one array of objects, each a row; paths in it relative to the file's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fuseline.data.adapters.json_stream import iter_items
from fuseline.data.cells import describe
from fuseline.data.compressed import open_rows
from fuseline.data.shards import BATCH_ROWS
from fuseline.data.tabular import BLOCK_BYTES, Batch, Reader, Record, Unread


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file; an element that is no object becomes a row with a problem."""
    reader = Reader(batch, name, split)
    with open_rows(batch.root, name) as file:
        for start, items in blocks(iter_items(file, name)):
            wheres = [f"{name}, element {start + number}" for number in range(1, len(items) + 1)]
            yield from reader.read([_record(item) for item in items], wheres)


def blocks(items: Iterator[tuple[Any, int]]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield elements by the block, each with how many stood before it."""
    held: list[Any] = []
    start = size = 0
    for item, length in items:
        held.append(item)
        size += length
        if len(held) == BATCH_ROWS or size >= BLOCK_BYTES:
            yield start, held
            start, held, size = start + len(held), [], 0
    if held:
        yield start, held


def _record(item: Any) -> Record:
    return item if isinstance(item, dict) else Unread(f"element is {describe(item)}; expected an object")
