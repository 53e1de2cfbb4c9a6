"""CoNLL: one sentence, one example, whatever the tagging scheme."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.adapters.conll import to_spans
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]

TOKENS = ["Ann", "Lee", "met", "Bob", "Eve", "in", "Rome"]
SPANS = [(0, 7, "PER"), (12, 15, "PER"), (16, 19, "PER"), (23, 27, "LOC")]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-PER B-PER O B-LOC", SPANS),
        ("I-PER I-PER O I-PER B-PER O I-LOC", SPANS),
        ("B-PER E-PER O S-PER S-PER O S-LOC", SPANS),
        ("B-PER L-PER O U-PER U-PER O U-LOC", SPANS),
        ("I-PER I-PER O I-PER I-PER O I-LOC", [(0, 7, "PER"), (12, 19, "PER"), (23, 27, "LOC")]),
        ("B-PER I-LOC O O O O O", [(0, 3, "PER"), (4, 7, "LOC")]),
        ("O O O O O O E-LOC", [(23, 27, "LOC")]),
        ("B-PER E-PER I-PER O O O O", [(0, 7, "PER"), (8, 11, "PER")]),
        ("O O O O O O O", []),
    ],
    ids=["BIO", "IOB1", "BIOES", "BILOU", "IO", "a change of label", "a lone end", "inside after the end", "none"],
)
def test_tags_of_each_scheme_become_spans(tags: str, spans: list[Any]) -> None:
    assert to_spans(TOKENS, tags.split()) == spans


def test_a_sentence_is_its_tokens_with_a_space_between(write: Write, rows_of: Rows) -> None:
    path = write("train.conll", "-DOCSTART- -X- O O\n\nAnn NNP B-NP B-PER\r\nmet VBD B-VP O\n\n\nBob NNP B-NP B-PER\n")
    first, second = rows_of(path, kind="ner")
    assert first == {
        "group": "train.conll, document 1",
        "text": "Ann met",
        "target": '[[0, 3, "PER"]]',
        "where": "train.conll, line 3",
    }
    assert (second["text"], second["where"]) == ("Bob", "train.conll, line 7")
    assert all(first["text"][s:e] == "Ann" for s, e, _ in json.loads(first["target"]))


def test_a_document_ends_a_sentence(write: Write, rows_of: Rows) -> None:
    assert [row["text"] for row in rows_of(write("a.conll", "a O\n-DOCSTART- O\nb O\n"))] == ["a", "b"]


@pytest.mark.parametrize("mark", ["-DOCSTART- O\n\n", "# newdoc id = 7\n", "-DOCSTART- -X- O O\n"])
def test_sentences_of_a_document_are_a_group_where_documents_are_told_apart(
    write: Write, rows_of: Rows, mark: str
) -> None:
    rows = rows_of(write("a.conll", f"a O\n\nb O\n\n{mark}c O\n\n{mark}d O\n\ne O\n"))
    assert [row["group"].removeprefix("a.conll, document ") for row in rows] == ["0", "0", "1", "2", "2"]
    assert not any("group" in row for row in rows_of(write("b.conll", "a O\n\nb O\n")))


def test_comments_are_left_out_and_a_number_sign_may_be_a_token(write: Write, rows_of: Rows) -> None:
    path = write("a.conll", "# id 1234\tdomain=en\na O\n# O\n\n# O\nb O\n")
    assert [row["text"] for row in rows_of(path)] == ["a #", "# b"]


def test_a_tab_lets_tokens_hold_other_blanks(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("a.conll", "a\u00a0b\tO\nc\tB-x y\n"))
    assert row["problem"] == "line 2: tag 'B-x y' is not O or a prefix and a label, such as B-PER"
    assert row["text"] == "a\u00a0b c"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"alone", "line 4: 'alone' stands alone"),
        (b"a NNP", "line 4: tag 'NNP' is not O or a prefix and a label"),
        (b"a b\tO", "line 4: token 'a b' holds a space"),
        (b"caf\xe9 O", "text is not UTF-8"),
    ],
)
def test_a_malformed_line_is_its_sentences_problem(write: Write, rows_of: Rows, bad: bytes, why: str) -> None:
    first, second, third = rows_of(write("a.conll", b"a O\n\nb O\n" + bad + b"\n\nc O\n"))
    assert why in second["problem"]
    assert second["where"] == "a.conll, line 3"
    assert "problem" not in first | third


def test_columns_cannot_be_named(write: Write, rows_of: Rows) -> None:
    with pytest.raises(DataError, match="CoNLL has no named columns"):
        rows_of(write("a.conll", "a O\n"), columns={"text": "tokens"})


def test_a_sentence_without_end_is_cut(write: Write, rows_of: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuseline.data.adapters import conll

    monkeypatch.setattr(conll, "MAX_SENTENCE_BYTES", 100)
    rows = rows_of(write("a.conll", "token O\n" * 40))
    assert len(rows) > 2
    assert "is longer than 100 bytes" in rows[0]["problem"]


def test_a_sentence_has_no_id_that_another_file_of_the_same_name_would_take(write: Write, rows_of: Rows) -> None:
    rows = rows_of(write("a.conll", "a O\n\na O\n"), kind="ner")
    assert [row.get("id") for row in rows] == [None, None]
