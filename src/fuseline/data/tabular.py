"""Records with named columns to drafts: what JSON Lines, CSV, Parquet, metadata files and Label Studio's data share."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuseline.data import cells
from fuseline.data.columns import Columns
from fuseline.data.drafts import TABLE_BYTES, from_columns, join
from fuseline.data.files import AUDIO_SUFFIXES, MAX_RECORD_BYTES, MAX_SHOWN, suffix_of
from fuseline.data.shards import FILES
from fuseline.data.urls import hide_secrets
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE

BLOCK_BYTES = 16 << 20
"""Rows are parsed in blocks of about this size, or BATCH_ROWS."""


@dataclass(frozen=True)
class Batch:
    """What an adapter needs to know of a batch."""

    root: Path
    """Nothing outside of it is read."""
    columns: Columns = field(default_factory=Columns)
    kind: str = "classification"
    """The problem, as `task.kind` in params.yaml: it tells a list of references from a list of spans."""
    files: Path | None = None
    """Folder that paths in rows start from; None: that of the file that gives them. Nothing outside is read either."""
    seen: set[str] | None = None
    """Takes in the names of files that rows give, where that is asked for."""


@dataclass
class Block:
    """Some rows of one file, by field, before their cells are looked at."""

    wheres: list[str]
    problems: list[str | None]
    unread: list[bool]
    """Of these rows nothing could be read: that is their problem, and no cell is missed."""
    fields: dict[str, list[Any]]
    meta: list[dict[str, Any]]
    """What gives no field."""


@dataclass(frozen=True)
class Unread:
    """A record of which nothing could be read."""

    problem: str
    line: bytes | None = None
    """What stands there, where it is small enough to be looked at."""

    @property
    def meta(self) -> dict[str, Any]:
        """Keep the line's beginning."""
        line = hide_secrets((self.line or b"")[:MAX_SHOWN].decode("utf-8", "replace").rstrip("\r\n"))
        return {} if self.line is None else {"line": line[:1000]}


Record = Mapping[str, Any] | Unread


class Reader:
    """Turns records of one file into drafts.

    Args:
        name: the file, relative to the batch's root; paths in its records start from its folder.
        split: for rows that give none.
        needs: fields for which the file is refused if no column gives them.
    """

    def __init__(self, batch: Batch, name: str, split: str | None = None, needs: Collection[str] = ("target",)) -> None:
        self.batch, self.name, self.split, self.needs = batch, name, split, needs
        self._base = posixpath.dirname(name)
        self._checked = False

    def resolve(self, there: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return the columns that give each field; what was asked for must be in the first rows.

        Raises:
            DataError: it is not.
        """
        if self._checked or not there:
            return self.batch.columns.find(there)
        self._checked = True
        return self.batch.columns.resolve(self.name, there, self.needs)

    def read(
        self, records: Sequence[Record], wheres: list[str], problems: Sequence[str | None] = ()
    ) -> Iterator[pa.Table]:
        """Yield records as drafts."""
        return self.tables(self.block(records, wheres, problems))

    def block(self, records: Sequence[Record], wheres: list[str], problems: Sequence[str | None] = ()) -> Block:
        """Sort records by field.

        Args:
            problems: what is already known to be wrong with them.
        """
        unread = [isinstance(record, Unread) for record in records]
        rows = [{} if isinstance(record, Unread) else record for record in records]
        fields = self.resolve(dict.fromkeys(key for row in rows for key in row))
        first = {columns[0] for columns in fields.values()}
        meta = [{key: value for key, value in row.items() if key not in first and value is not None} for row in rows]
        found = {name: [row.get(columns[0]) for row in rows] for name, columns in fields.items()}
        for name, columns in fields.items():
            for column in columns[1:]:
                _fill(found[name], meta, column)
        block = Block(wheres, list(problems) or [None] * len(rows), unread, found, meta)
        for row, record in enumerate(records):
            if isinstance(record, Unread):
                block.problems[row], block.meta[row] = record.problem, record.meta
        return block

    def block_of_columns(
        self, columns: Mapping[str, list[Any]], wheres: list[str], problems: list[str | None]
    ) -> Block:
        """Sort whole columns by field, faster than records."""
        fields = self.resolve(columns)
        first = {names[0] for names in fields.values()}
        rest = [name for name in columns if name not in first]
        cells_of_rest = zip(*(columns[name] for name in rest), strict=True) if rest else ((),) * len(wheres)
        meta = [{k: v for k, v in zip(rest, row, strict=True) if v is not None} for row in cells_of_rest]
        found = {name: list(columns[names[0]]) for name, names in fields.items()}
        for name, names in fields.items():
            for column in names[1:]:
                _fill(found[name], meta, column)
        return Block(wheres, problems, [False] * len(wheres), found, meta)

    def tables(self, block: Block, targets: Sequence[str | None] | None = None) -> Iterator[pa.Table]:
        """Yield a block's rows as drafts; a table is closed at TABLE_BYTES of files.

        Args:
            targets: where they are not among the fields; what is wrong with one is said already.
        """
        _add_references(block, self.batch.kind)
        columns: dict[str, list[Any]] = {
            "id": _convert(block, "id", cells.to_key),
            "group": _convert(block, "group", cells.to_key),
            "text": _convert(block, "text", cells.to_text),
            "text_pair": _convert(block, "text_pair", cells.to_text),
            "target": list(targets) if targets is not None else _targets(block),
            "split": [split or self.split for split in _convert(block, "split", cells.to_split)],
            BOXES: _convert(block, BOXES, cells.to_boxes),
            "meta": _metas(block),
            "where": block.wheres,
            "problem": block.problems,
        }
        start = 0
        while start < len(block.wheres):
            files, stop = self._files(block, start)
            yield from_columns({name: column[start:stop] for name, column in columns.items()} | files)
            start = stop

    def _files(self, block: Block, start: int) -> tuple[dict[str, list[Any]], int]:
        """Read the files of rows from `start` on; return them by column, and the row to go on from."""
        given = [name for name in (*FILES, MORE, "file") if name in block.fields]
        rows = len(block.wheres) - start
        read: dict[str, list[Any]] = {name: [None] * rows for name in (*FILES, MORE)} if given else {}
        cells_of_files = zip(*(block.fields[name][start:] for name in given), strict=True)
        size = 0
        for row, values in enumerate(cells_of_files):
            if values.count(None) == len(values):
                continue
            found = dict(_by_column(block, start + row, given, values))
            pictures = self._pictures(block, start + row, found)
            if pictures:
                read["image"][row], read[MORE][row] = pictures[0], pictures[1:] or None
            for name, value in found.items():
                read[name][row] = _try(block, start + row, name, self._to_file, value)
                size += len(read[name][row] or b"")
            size += sum(len(data or b"") for data in pictures)
            if size >= TABLE_BYTES:
                return {name: files[: row + 1] for name, files in read.items()}, start + row + 1
        return read, len(block.wheres)

    def _pictures(self, block: Block, row: int, found: dict[str, Any]) -> list[bytes | None]:
        """Take a row's pictures out of what was found, and read them; of several, one that is none is named."""
        given = cells.to_list(found.pop("image", None)) + cells.to_list(found.pop(MORE, None))
        if len(given) < 2:
            return [_try(block, row, "image", self._to_file, value) for value in given]
        if found.get("image_pair") is not None:
            block.problems[row] = join(block.problems[row], "image has several pictures; beside image_pair, it has one")
        names = [f"image, picture {number} of {len(given)}," for number in range(1, len(given) + 1)]
        return [_try(block, row, name, self._to_picture, value) for name, value in zip(names, given, strict=True)]

    def _to_picture(self, value: Any) -> bytes:
        data = self._to_file(value)
        if data is None:
            raise DataError("is missing; expected a path, or leave it out of the list")
        return data

    def _to_file(self, value: Any) -> bytes | None:
        if self.batch.files is not None:
            return cells.to_file(value, self.batch.files, "")
        if self.batch.seen is not None and isinstance(value, str):
            self.batch.seen.add(posixpath.normpath(posixpath.join(self._base, value.replace("\\", "/"))))
        return cells.to_file(value, self.batch.root, self._base)


def _by_column(block: Block, row: int, given: Sequence[str], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield a row's file cells by the column they go to; one named just `file` goes where its suffix says."""
    found = {name: value for name, value in zip(given, values, strict=True) if value is not None}
    name = found.pop("file", None)
    if name is not None:
        kind = "audio" if isinstance(name, str) and suffix_of(name) in AUDIO_SUFFIXES else "image"
        if kind in found:
            block.problems[row] = join(block.problems[row], f"file_name and {kind} are both given")
        else:
            found[kind] = name
    yield from found.items()


def _fill(found: list[Any], meta: Sequence[dict[str, Any]], column: str) -> None:
    for row, value in enumerate(found):
        if value is None:
            found[row] = meta[row].pop(column, None)


def _convert(block: Block, name: str, convert: Callable[[Any], Any]) -> list[Any]:
    values = block.fields.get(name)
    if values is None:
        return [None] * len(block.wheres)
    if not set(map(type, values)) <= {str, type(None)}:
        return [_try(block, row, name, convert, value) for row, value in enumerate(values)]
    if convert is cells.to_text and max(map(len, filter(None, values)), default=0) <= MAX_RECORD_BYTES:
        return values
    known: dict[Any, Any] = {}  # labels and splits are few
    for value in set(values):
        with suppress(DataError):
            known[value] = convert(value)
    return [known[v] if v in known else _try(block, row, name, convert, v) for row, v in enumerate(values)]


def _try(block: Block, row: int, name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except DataError as error:
        if not block.unread[row]:
            block.problems[row] = join(block.problems[row], f"{name} {error}")
        return None


def _targets(block: Block) -> list[str | None]:
    block.fields.setdefault("target", [None] * len(block.wheres))
    return _convert(block, "target", cells.to_target)


def _add_references(block: Block, kind: str) -> None:
    """Reduce lists of texts to the first, where one output text is asked for; the others go to meta."""
    if kind == "multilabel":
        return
    values = block.fields.get("target", [])
    for row, value in enumerate(values):
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            if kind == "generation" or len(value) == 1:
                values[row] = value[0]
            if kind == "generation" and value[1:]:
                block.meta[row]["references"] = value[1:]


def _metas(block: Block) -> list[str | None]:
    """Write what gives no field; a meta that came as a JSON object takes the rest in."""
    for row, meta in enumerate(block.meta):
        if "meta" in meta and isinstance(inner := _object(meta["meta"]), dict):
            block.meta[row] = inner | {key: value for key, value in meta.items() if key != "meta"}
    rows = [row for row, meta in enumerate(block.meta) if meta]
    texts = cells.to_jsons([block.meta[row] for row in rows])
    if texts is None:
        texts = [_try(block, row, "meta", cells.to_json, block.meta[row]) for row in rows]
    written: list[str | None] = [None] * len(block.meta)
    for row, text in zip(rows, texts, strict=False):
        written[row] = text
    return written


def _object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
