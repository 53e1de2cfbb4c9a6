"""Drafts: any rows fit, and what cannot be written is said."""

from __future__ import annotations

import pytest

from fuseline.data import drafts
from fuseline.data.drafts import DRAFT, join, to_table, to_tables
from fuseline.data.shards import WIDE


def test_a_draft_has_a_shards_columns_and_says_where_it_stood() -> None:
    assert set(DRAFT.names) == set(WIDE.names) - {"source"} | {"where", "problem"}


def test_what_a_row_leaves_out_is_null() -> None:
    table = to_table([{"where": "a", "text": "t"}, {"where": "b", "image": b"i"}])
    assert table.schema.equals(DRAFT)
    assert table["text"].to_pylist() == ["t", None]
    assert table["image"].to_pylist() == [None, b"i"]
    assert table["target"].null_count == 2


def test_a_text_that_no_encoding_can_write_is_mended_and_said() -> None:
    table = to_table([{"where": "a\udcff", "text": "caf\udce9", "problem": "target is missing"}, {"where": "b"}])
    assert table["text"].to_pylist() == ["caf\ufffd", None]
    assert table["where"].to_pylist() == ["a\ufffd", "b"]
    assert table["problem"].to_pylist() == ["target is missing; text is not UTF-8", None]


@pytest.mark.parametrize(("size", "rows"), [(1 << 20, [10, 10, 5]), (100, [4] * 6 + [1])], ids=["rows", "bytes"])
def test_tables_are_closed_by_rows_and_by_size(monkeypatch: pytest.MonkeyPatch, size: int, rows: list[int]) -> None:
    monkeypatch.setattr(drafts, "BATCH_ROWS", 10)
    monkeypatch.setattr(drafts, "TABLE_BYTES", size)
    found = list(to_tables({"where": "row 1", "text": "x" * 20} for _ in range(25)))
    assert [table.num_rows for table in found] == rows
    assert list(to_tables([])) == []


def test_problems_are_joined() -> None:
    assert join("a", None, "", "b") == "a; b"
    assert join(None) is None
