"""What may be asked at once: a row, several, a table, a stream, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from fuseline.errors import DataError
from fuseline.runtime.row import Row, make_row

Rows = Row | Mapping[str, Any] | Iterable[Row | Mapping[str, Any]] | os.PathLike[str]
"""Also a pandas DataFrame with columns text, image, audio, or some of them."""
Shape = Literal["one", "all", "stream"]
T = TypeVar("T")
COLUMNS = ("text", "image", "audio", "boxes")


def gather(given: Any) -> tuple[Iterator[Row], Shape]:
    """Return what is asked as rows, made one by one, and how answers are to come: as one, as a list, or one by one.

    Raises:
        DataError: it is nothing that holds rows.
    """
    if isinstance(given, Row | Mapping):
        return iter([as_row(given, "the row")]), "one"
    if isinstance(given, os.PathLike):
        from fuseline.runtime.rows import read_rows

        return (row for _, row in read_rows(Path(given))), "stream"
    if hasattr(given, "columns") and hasattr(given, "itertuples"):
        return rows_of_frame(given), "all"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(
            f"expected a Row, a dict, a list or an iterator of these, a DataFrame, or the Path of a file or folder, "
            f"found {type(given).__name__}; a text is asked as Row(text)"
        )
    rows = (as_row(each, f"rows[{number}]") for number, each in enumerate(given))
    return rows, "all" if isinstance(given, list | tuple) else "stream"


def as_row(given: Any, where: str) -> Row:
    """Return a row that knows what it is called."""
    if isinstance(given, Row):
        return given if given.where != Row.where else Row(given.text, given.image, given.audio, given.boxes, where)
    if isinstance(given, Mapping):
        return make_row(given, where)
    raise DataError(f"{where}: expected a Row or a dict, found {type(given).__name__}")


def rows_of_frame(frame: Any) -> Iterator[Row]:
    """Yield the rows of a pandas DataFrame, called by its index.

    Raises:
        DataError: it has none of COLUMNS.
    """
    columns = [name for name in COLUMNS if name in frame.columns]
    if not set(columns) - {"boxes"}:
        raise DataError(f"the DataFrame has none of the columns {', '.join(COLUMNS[:3])}; it has {list(frame.columns)}")
    cells = zip(frame.index, *(frame[name] for name in columns), strict=True)
    return (
        make_row(dict(zip(columns, values, strict=True)), f"the DataFrame's row {index!r}") for index, *values in cells
    )


def shape(answers: Iterator[T], how: Shape, together: Callable[[list[T]], Any] = list) -> Any:
    """Give answers as they were asked for.

    Args:
        together: what becomes of all answers at once.
    """
    if how == "stream":
        return answers
    return next(answers) if how == "one" else together(list(answers))
