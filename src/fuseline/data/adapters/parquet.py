"""Parquet: columns by name; pictures and sound as bytes, as Hugging Face's {bytes, path}, or as paths."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.data.drafts import TABLE_BYTES, join
from fuseline.data.files import clip, open_file
from fuseline.data.shards import BATCH_ROWS
from fuseline.data.tabular import Batch, Reader
from fuseline.errors import DataError

MAX_RATIO = 1000
"""A file of more than BOMB_BYTES that was packed more tightly than this is refused: Parquet's reader unpacks pages
whole, however large they are."""
BOMB_BYTES = 256 << 20


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file, some rows at a time.

    Raises:
        DataError: it is truncated or otherwise no Parquet file, or a decompression bomb.
    """
    reader = Reader(batch, name, split)
    with open_file(batch.root, name) as file:
        try:
            yield from _read(reader, file)
        except (pa.ArrowException, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise DataError(f"{name}: not a whole Parquet file: {clip(str(error), 300)}") from error


def _read(reader: Reader, file: BufferedReader) -> Iterator[pa.Table]:
    metadata = pq.read_metadata(file)
    _check(metadata, os.fstat(file.fileno()).st_size, reader.name)
    parquet = pq.ParquetFile(file, metadata=metadata, read_dictionary=_packed(metadata), buffer_size=1 << 20)
    reader.resolve(parquet.schema_arrow.names)
    classes = _classes(parquet.schema_arrow)
    row = 0
    for rows in parquet.iter_batches(batch_size=_batch_rows(metadata)):
        for start, stop in _spans(rows):
            part = rows.slice(start, stop - start)
            wheres = [f"{reader.name}, row {row + number}" for number in range(start + 1, stop + 1)]
            yield from _drafts(reader, part, classes, wheres)
        row += rows.num_rows
    if row != metadata.num_rows:
        raise DataError(f"{reader.name}: {row:,} rows; its footer says {metadata.num_rows:,}")


def _check(metadata: pq.FileMetaData, packed: int, name: str) -> None:
    names = metadata.schema.to_arrow_schema().names
    if twice := [column for column in dict.fromkeys(names) if names.count(column) > 1]:
        raise DataError(f"{name}: column {clip(twice[0])!r} is there twice")
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if size > BOMB_BYTES and size > MAX_RATIO * packed:
        raise DataError(f"{name}: unpacks {packed:,} bytes to {size:,}; a decompression bomb is not read")


def _packed(metadata: pq.FileMetaData) -> list[str]:
    """Name the columns to be read as dictionaries: one large value that stands in all rows is then held once."""
    schema = metadata.schema
    leaves = [schema.column(number) for number in range(metadata.num_columns)]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level == 0]


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Return how many rows of the widest row group make about TABLE_BYTES."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return int(min(max(TABLE_BYTES / max(widest, 1), 1), BATCH_ROWS))


def _spans(rows: pa.RecordBatch) -> list[tuple[int, int]]:
    """Cut rows where their values, written out, come to TABLE_BYTES."""
    sizes = np.zeros(rows.num_rows, np.int64)
    for column in rows.columns:
        sizes += _sizes(column)
    spans, start = [], 0
    ends = np.cumsum(sizes)
    while start < rows.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + TABLE_BYTES, side="right")), start + 1)
        spans.append((start, stop))
        start = stop
    return spans


def _sizes(column: pa.Array) -> Any:
    """Return the bytes of each value of a column of texts, bytes, or structs of them; 0 for others."""
    if pa.types.is_struct(column.type):
        return sum((_sizes(part) for part in column.flatten()), np.zeros(len(column), np.int64))
    if pa.types.is_dictionary(column.type):
        sizes = pc.take(pc.binary_length(column.dictionary), column.indices)
    elif pa.types.is_binary(column.type) or pa.types.is_string(column.type):
        sizes = pc.binary_length(column)
    else:
        return np.zeros(len(column), np.int64)
    return pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _drafts(
    reader: Reader, rows: pa.RecordBatch, classes: Mapping[str, Sequence[str]], wheres: list[str]
) -> Iterator[pa.Table]:
    problems: list[str | None] = [None] * rows.num_rows
    columns = [_cells(column) for column in rows.columns]
    for number, name in enumerate(rows.schema.names):
        if name in classes:
            columns[number] = _named(columns[number], name, classes[name], problems)
    records = [dict(zip(rows.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
    yield from reader.read(records, wheres, problems)


def _cells(column: pa.Array) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
        return cells
    except UnicodeDecodeError:  # Parquet does not check that a string is one
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        return [_cell(plain[row]) for row in range(len(plain))]
    except (ValueError, OverflowError) as error:  # a date beyond Python's
        raise DataError(f"a column of type {column.type} cannot be read: {error}") from error


def _cell(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        if isinstance(cell, pa.StringScalar | pa.LargeStringScalar):
            return cell.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        return "\udcff"  # somewhere inside: the row is told that it is not UTF-8


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names that Hugging Face's metadata gives for columns of numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _named(values: list[Any], column: str, names: Sequence[str], problems: list[str | None]) -> list[Any]:
    """Turn numbers into names; -1 stands for none."""
    found: list[Any] = []
    for row, value in enumerate(values):
        if isinstance(value, int) and not -1 <= value < len(names):
            problems[row] = join(problems[row], f"{column} {value} is none of its {len(names)} classes")
        in_range = isinstance(value, int) and 0 <= value < len(names)
        found.append(names[value] if in_range else None if isinstance(value, int) else value)
    return found
