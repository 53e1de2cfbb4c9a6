"""Parquet: files as bytes, as Hugging Face's {bytes, path}, or as paths beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuseline.data.adapters.sources import batch_files
from fuseline.data.drafts import DRAFT, MAX_CHARS, Columns, Row, missing_to_null, to_row, to_tables
from fuseline.data.shards import FILES
from fuseline.errors import DataError

ROWS = 1024
"""Rows that are read at once: with large pictures more would be too much."""


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the rows of a file, or of all `.parquet` files of a folder."""
    for file in batch_files(path, (".parquet",)):
        yield from _read(file, columns)


def _read(file: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    try:
        source = pq.ParquetFile(file)
        known = Columns(source.schema_arrow.names, columns, str(file))
        names = _label_names(source.schema_arrow)
        start = 1
        for batch in source.iter_batches(batch_size=ROWS):
            where = [f"{file.name}, row {n}" for n in range(start, start + len(batch))]
            start += len(batch)
            table = _fast(batch, known, where) if not names else None
            if table is not None:
                yield table
            else:
                yield from to_tables(_slow(batch, known, where, file, names))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {error}") from error


def _label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names behind the numbers of Hugging Face's ClassLabel columns."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _fast(batch: pa.RecordBatch, known: Columns, where: list[str]) -> pa.Table | None:
    """Take whole columns over; None where rows need a look each: paths, lists, columns for meta."""
    if known.rest or "split" in known.of:
        return None
    cells: dict[str, pa.Array] = {}
    for field, name in known.of.items():
        column = batch.column(name)
        if field in FILES:
            if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
                data = column.field("bytes")
                if data.null_count > column.null_count:
                    return None
                column = pc.if_else(column.is_valid(), data, None)
            if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
                return None
            cells[field] = column.cast(pa.binary())
        elif (
            pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_integer(column.type)
        ):
            cells[field] = missing_to_null(column.cast(pa.string()))
            if (pc.max(pc.utf8_length(cells[field])).as_py() or 0) > MAX_CHARS:
                return None
        else:
            return None
    cells["where"] = pa.array(where)
    return pa.table([cells[f.name] if f.name in cells else pa.nulls(len(batch), f.type) for f in DRAFT], schema=DRAFT)


def _slow(
    batch: pa.RecordBatch, known: Columns, where: list[str], file: Path, names: Mapping[str, list[str]]
) -> Iterator[Row]:
    for place, record in zip(where, batch.to_pylist(), strict=True):
        yield to_row(_name_labels(record, names), known, place, file.parent, file.parent)


def _name_labels(record: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    for column, labels in names.items():
        number = record.get(column)
        if isinstance(number, int):
            record[column] = labels[number] if 0 <= number < len(labels) else None  # -1: Hugging Face's "no label"
    return record
