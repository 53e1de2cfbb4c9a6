"""Parquet: columns by name; pictures and sound as bytes, Hugging Face's {bytes, path}, paths, or lists of these."""

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
from numpy.typing import NDArray

from fuseline.data.drafts import TABLE_BYTES, join
from fuseline.data.files import CHUNK, clip, open_file
from fuseline.data.shards import BATCH_ROWS
from fuseline.data.tabular import Batch, Reader
from fuseline.errors import DataError

MAX_RATIO = 1000
"""A file that holds this many times its size, more than BOMB_BYTES, is refused: a page is unpacked whole, however large
it is, and a value that is stored once may stand in every row."""
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
    most = max(BOMB_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size)
    _check(metadata, most, reader.name)
    parquet = pq.ParquetFile(file, metadata=metadata, buffer_size=CHUNK)
    packed = pq.ParquetFile(file, metadata=metadata, buffer_size=CHUNK, read_dictionary=_leaves(metadata))
    reader.resolve(parquet.schema_arrow.names)
    classes = _classes(parquet.schema_arrow)
    row = held = 0
    for group in range(metadata.num_row_groups):
        size = _batch_rows(metadata.row_group(group), packed, group)
        for rows in parquet.iter_batches(batch_size=size, row_groups=[group]):
            sizes = sum(map(_sizes, rows.columns), np.zeros(rows.num_rows, np.int64))
            held += int(sizes.sum())
            if held > most:
                raise _bomb(reader.name, most)
            for start, stop in _spans(sizes):
                wheres = [f"{reader.name}, row {row + number}" for number in range(start + 1, stop + 1)]
                yield from _drafts(reader, rows.slice(start, stop - start), classes, wheres)
            row += rows.num_rows
    if row != metadata.num_rows:
        raise DataError(f"{reader.name}: {row:,} rows; its footer says {metadata.num_rows:,}")


def _check(metadata: pq.FileMetaData, most: int, name: str) -> None:
    names = metadata.schema.to_arrow_schema().names
    if twice := [column for column in dict.fromkeys(names) if names.count(column) > 1]:
        raise DataError(f"{name}: column {clip(twice[0])!r} is there twice")
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if size > most:
        raise _bomb(name, most)


def _bomb(name: str, most: int) -> DataError:
    return DataError(f"{name}: holds more than {most:,} bytes, packed too tightly; a decompression bomb is not read")


def _leaves(metadata: pq.FileMetaData) -> list[str]:
    """Name the columns, parts of structs among them, that may be read as dictionaries."""
    schema = metadata.schema
    leaves = [schema.column(number) for number in range(metadata.num_columns)]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level <= 1]


def _batch_rows(group: pq.RowGroupMetaData, packed: pq.ParquetFile, number: int) -> int:
    """Return how many rows of a row group come to TABLE_BYTES at most, or nearly so.

    A value that is stored once, in a column's dictionary, may stand in every row: all rows may be as large as the
    largest of these. One row, read as a dictionary, shows the whole of it. In a list it may stand many times over: of
    lists all rows are looked at, as numbers of values.
    """
    largest = group.total_byte_size / max(group.num_rows, 1)
    for rows in packed.iter_batches(batch_size=1, row_groups=[number]):
        largest = max(largest, sum(map(_largest, rows.columns)))
        break
    lists = [field.name for field in packed.schema_arrow if _is_list(field.type)]
    for rows in packed.iter_batches(row_groups=[number], columns=lists) if lists else ():
        sizes = sum(map(_sizes, rows.columns), np.zeros(rows.num_rows, np.int64))
        largest = max(largest, int(sizes.max(initial=0)))
    return int(min(max(TABLE_BYTES / max(largest, 1), 1), BATCH_ROWS))


def _largest(column: pa.Array) -> int:
    """Return the bytes of the largest value in a column's dictionary; 0 for a column that has none."""
    if pa.types.is_struct(column.type):
        return sum(map(_largest, column.flatten()))
    if not pa.types.is_dictionary(column.type) or not _is_bytes(column.dictionary.type):
        return 0
    return pc.max(pc.binary_length(column.dictionary)).as_py() or 0


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _spans(sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut rows of these sizes where they come to TABLE_BYTES."""
    spans, start = [], 0
    ends = np.cumsum(sizes)
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + TABLE_BYTES, side="right")), start + 1)
        spans.append((start, stop))
        start = stop
    return spans


def _sizes(column: pa.Array) -> Any:
    """Return the bytes of each value of a column of texts, bytes, structs or lists of them; 0 for others."""
    if pa.types.is_struct(column.type):
        return sum((_sizes(part) for part in column.flatten()), np.zeros(len(column), np.int64))
    if _is_list(column.type):
        sizes = np.zeros(len(column), np.int64)
        np.add.at(sizes, pc.list_parent_indices(column).to_numpy(), _sizes(column.flatten()))
        return sizes
    if pa.types.is_dictionary(column.type):
        each = np.append(_sizes(column.dictionary), 0)
        return each[column.indices.fill_null(-1).to_numpy()]
    if not _is_bytes(column.type):
        return np.zeros(len(column), np.int64)
    sizes = pc.binary_length(column)
    return pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _drafts(
    reader: Reader, rows: pa.RecordBatch, classes: Mapping[str, Sequence[str]], wheres: list[str]
) -> Iterator[pa.Table]:
    problems: list[str | None] = [None] * rows.num_rows
    columns = {name: _cells(column) for name, column in zip(rows.schema.names, rows.columns, strict=True)}
    for name, names in classes.items():
        columns[name] = _named(columns[name], name, names, problems)
    yield from reader.tables(reader.block_of_columns(columns, wheres, problems))


def _cells(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        cells: list[Any] = column.to_pylist()
        return cells
    except UnicodeDecodeError:  # Parquet does not check that a string is one
        return [_cell(column[row]) for row in range(len(column))]
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
