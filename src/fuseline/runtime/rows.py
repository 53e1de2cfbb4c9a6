"""Rows to answer, from files: JSON Lines, CSV, Parquet, and folders of these or of pictures and recordings."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES, parse_boxes
from fuseline.inputs.image import COUNTS, MORE, SUFFIXES, pictures_of
from fuseline.records import Bundle, files_of
from fuseline.runtime.bundle import task_of
from fuseline.runtime.row import Row, make_row

BATCH_ROWS = 64
"""Rows that are held in memory at once: pictures may be large."""
Pair = tuple[dict[str, Any], Row]
"""What was given besides files, such as `id`, and the row."""
PICTURES = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
RECORDINGS = {".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
LONGEST_CELL = 10_000_000
"""Characters of a CSV file's cell."""


def read_rows(path: Path) -> Iterator[Pair]:
    """Yield the rows of a file, or of all files of a folder in order of their names, each with what it is called.

    A folder without files of rows is one of pictures and recordings: each is a row by itself.

    Raises:
        DataError: naming file and row, for anything that is no row.
    """
    if not path.is_dir():
        yield from _reader_of(path)(path)
        return
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
    if of_rows := [file for file in files if file.suffix.lower() in READ]:
        for file in of_rows:
            yield from read_rows(file)
        return
    alone = [file for file in files if file.suffix.lower() in PICTURES | RECORDINGS]
    if not alone:
        known = ", ".join(sorted(PICTURES | RECORDINGS))
        raise DataError(f"{path}: no rows here; expected files with {', '.join(READ)}, or with {known}")
    for file in alone:
        key = "image" if file.suffix.lower() in PICTURES else "audio"
        yield {"id": file.name}, make_row({key: file}, str(file))


def _reader_of(path: Path) -> Callable[[Path], Iterator[Pair]]:
    if path.suffix.lower() not in {*READ, *LINES}:
        raise DataError(f"{path}: rows are read from {', '.join(READ)} and folders")
    return READ.get(path.suffix.lower(), read_jsonl)


def read_parquet(
    split: Path, modalities: Sequence[str], wanted: Sequence[str] | None = None, several: bool = False
) -> Iterator[Row]:
    """Yield the rows of a prepared split, a folder, a batch in memory at a time.

    Args:
        modalities: what is read of each.
        wanted: a row must have one of these; null takes `modalities`.
        several: whether rows are shown with all their pictures, or with the first alone.
    """
    needed = modalities if wanted is None else wanted
    import pyarrow.parquet as pq  # here: serving JSON does not need it

    for file in files_of(split):
        prepared = pq.ParquetFile(file, pre_buffer=False)
        more = [MORE] if several and "image" in modalities and MORE in prepared.schema_arrow.names else []
        placed = [BOXES] if "text" in modalities and BOXES in prepared.schema_arrow.names else []
        for batch in prepared.iter_batches(batch_size=BATCH_ROWS, columns=[*modalities, *more, *placed]):
            for row in batch.to_pylist():
                if any(row[name] is not None for name in needed):
                    pictures = {"image": pictures_of(row)} if more else {}
                    values = {name: row[name] for name in modalities} | pictures
                    given = {name: v["bytes"] if isinstance(v, dict) else v for name, v in values.items()}
                    yield Row(**given, boxes=parse_boxes(row.get(BOXES)))


@dataclass(frozen=True)
class Prepared:
    """The rows of a prepared split that a bundle can answer, read anew each time that they are gone through."""

    split: Path
    modalities: Sequence[str]
    wanted: Sequence[str]
    several: bool

    @classmethod
    def of(cls, split: Path, bundle: Bundle) -> Self:
        """Give what a bundle can answer of the rows of a split, a folder."""
        return cls(split, bundle.modalities, task_of(bundle).wanted(bundle.modalities), COUNTS.name in bundle.inputs)

    def __iter__(self) -> Iterator[Row]:
        return read_parquet(self.split, self.modalities, self.wanted, self.several)

    def __len__(self) -> int:
        """Count them without reading pictures and recordings: where a file is null, so is the path beside its bytes."""
        import pyarrow.compute as pc  # here: as above
        import pyarrow.parquet as pq

        columns = [name if name == "text" else f"{name}.path" for name in self.wanted]
        count = 0
        for file in files_of(self.split):
            for batch in pq.ParquetFile(file).iter_batches(columns=columns):
                there = [pc.is_valid(batch[name]).to_numpy(zero_copy_only=False) for name in self.wanted]
                count += sum(map(any, zip(*there, strict=True)))
        return count


def read_table(file: Path) -> Iterator[Pair]:
    """Yield the rows of any Parquet file with columns `text`, `image` and `audio`, files as paths, bytes or structs.

    Raises:
        DataError: naming file and row, from 1.
    """
    import pyarrow as pa  # as above
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file, pre_buffer=False)
        columns = [name for name in ("id", "text", "image", "audio", BOXES) if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                document = {"id": row["id"]} if row.get("id") is not None else {}
                yield document, make_row(row, f"{file}, row {number}", file.parent)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error})") from error


def read_csv(file: Path) -> Iterator[Pair]:
    """Yield the rows of a CSV or TSV file with a header; an empty cell is nothing.

    Raises:
        DataError: naming file and line.
    """
    csv.field_size_limit(LONGEST_CELL)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, delimiter=delimiter, strict=True)
            for row in table:
                where = f"{file}, line {table.line_num}"
                if None in row:
                    raise DataError(f"{where}: more cells than the header has")
                given = {name: cell or None for name, cell in row.items()}
                yield {"id": given["id"]} if given.get("id") else {}, make_row(given, where, file.parent)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not CSV in UTF-8: {error}") from error


def read_jsonl(file: Path) -> Iterator[Pair]:
    """Yield each line of a JSON Lines file as it stands, and as a row.

    A line is an object with any of `text`, `image` and `audio`, the last two as paths relative to the file's folder,
    `image` as a list of paths where a row has several, and `boxes` where it is known where words stand; other keys
    pass.

    Raises:
        DataError: naming file and line, for anything else.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, f"{file}, line {number}", file.parent)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8: {error}") from error


def _parse(line: str, where: str, folder: Path) -> Pair:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(
            f'{where}: expected an object such as {{"text": "…", "image": "a.png"}}, found {line.strip()[:60]}'
        )
    return document, make_row(document, where, folder)


LINES = ("", ".json", ".txt")
"""JSON Lines by another name."""
READ: dict[str, Callable[[Path], Iterator[Pair]]] = {
    ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv, ".tsv": read_csv, ".parquet": read_table,
}  # fmt: skip
"""By the suffix of a file, what reads it; one without a suffix is taken for JSON Lines."""
