"""CSV and TSV: quoting as in RFC 4180, and what breaks it costs its own row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.adapters import delimited
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(write: Write, rows_of: Rows, name: str, delimiter: str) -> None:
    (row,) = rows_of(write(name, "id;text;label;x\n1;a;b;c\n".replace(";", delimiter)))
    assert (row["id"], row["text"], row["target"], row["meta"]) == ("1", "a", "b", '{"x": "c"}')


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(write: Write, rows_of: Rows) -> None:
    path = write("rows.csv", '\ufefftext,label\r\n"a, ""b""\r\nc",x\r\nd,y\r\n')
    first, second = rows_of(path)
    assert (first["text"], first["where"]) == ('a, "b"\r\nc', "rows.csv, line 2")
    assert (second["text"], second["where"]) == ("d", "rows.csv, line 4")


def test_an_empty_cell_is_null(write: Write, rows_of: Rows) -> None:
    first, second = rows_of(write("rows.csv", "text,label,x\n,a,\nb,,\n"))
    assert first == {"target": "a", "where": "rows.csv, line 2"}
    assert second == {"text": "b", "where": "rows.csv, line 3", "problem": "target is missing"}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"only", "1 cells; expected 2"),
        (b"a,b,c", "3 cells; expected 2"),
        (b"caf\xe9,x", "text is not UTF-8"),
        (b'"a"b,x', "not CSV"),
        (b'"a,x', "not CSV"),
        (b"a,nan", "target is missing"),
    ],
)
def test_a_bad_record_costs_only_itself(write: Write, rows_of: Rows, bad: bytes, why: str) -> None:
    first, row, last = rows_of(write("rows.csv", b"text,label\ngood,x\n" + bad + b"\ngood,y\n"))
    assert (first["target"], last["target"], last["where"]) == ("x", "y", "rows.csv, line 4")
    assert why in row["problem"]
    assert "problem" not in first | last


def test_cells_beyond_the_header_are_kept(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("rows.csv", "text,label\na,b,c,d\n"))
    assert row["meta"] == '{"more cells": ["c", "d"]}'


def test_a_nul_is_a_character_like_any_other(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("rows.csv", "text,label\na\0b,x\n"))
    assert row["text"] == "a\0b"


def test_quotes_that_are_never_closed_do_not_swallow_the_file(write: Write, rows_of: Rows) -> None:
    path = write(
        "rows.csv", "text,label\n" + "".join(f'"{n},x\ngood {n},y\n' if n == 2 else f"{n},x\n" for n in range(5))
    )
    rows = rows_of(path)
    assert [row.get("text") for row in rows] == ["0", "1", None, "good 2", "3", "4"]


def test_lines_that_keep_a_quote_open_are_not_read_for_ever(
    write: Write, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "MAX_STRAY_QUOTES", 20)
    with pytest.raises(DataError, match="more than 20 records break the rules of CSV.*quote cells"):
        rows_of(write("rows.csv", "text,label\n" + 'x","y\n' * 5000))


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "empty; expected a header"), ("\n \n", "empty; expected a header"), ('"text', "header"),
     ("text,label,text\n", "names 'text' twice"), ("a,b\n1,2\n", "no column for target")],
)  # fmt: skip
def test_a_broken_header_stops_the_batch(write: Write, rows_of: Rows, content: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        rows_of(write("rows.csv", content))


def test_a_header_alone_is_a_batch_of_no_rows(write: Write, rows_of: Rows) -> None:
    assert rows_of(write("rows.csv", "text,label\n")) == []


def test_a_giant_cell_is_read_and_a_giant_line_is_not(
    write: Write, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("rows.csv", "text,label\n" + "a" * 200_000 + ",x\n")
    assert len(rows_of(path)[0]["text"]) == 200_000
    monkeypatch.setattr(delimited.iter_lines, "__defaults__", (1000,))
    (row,) = rows_of(path)
    assert row["problem"].startswith("not CSV: line is longer than")
