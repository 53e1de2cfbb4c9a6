"""SQuAD: a question, its context, and where the answer stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.targets import target_error
from fuseline.errors import DataError

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str, str | bytes], Path]

CONTEXT = "The rose is red."


def document(*questions: Any) -> str:
    paragraphs = [{"context": CONTEXT, "qas": list(questions)}]
    return json.dumps({"version": {"a": ["1"]}, "data": [{"title": "Roses", "paragraphs": paragraphs}], "more": 1})


def answer(start: Any, text: Any, **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Which?", "answers": [{"answer_start": start, "text": text}], **more}


def test_a_question_is_an_example_of_its_article(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("a.json", document(answer(12, "red"))))
    assert row == {
        "id": "q1", "group": "Roses", "text": "Which?", "text_pair": CONTEXT, "target": '[[12, "red"]]',
        "where": "a.json, article 1, paragraph 1, question 1",
    }  # fmt: skip


def test_every_answer_counts_and_none_is_an_answer(write: Write, rows_of: Rows) -> None:
    several = answer(12, "red")
    several["answers"] += [{"answer_start": 12, "text": "red"}, {"answer_start": 0, "text": "The rose"}]
    first, second = rows_of(write("a.json", document(several, {"id": 2, "question": "Why?", "is_impossible": True})))
    assert json.loads(first["target"]) == [[12, "red"], [0, "The rose"]]
    assert (second["id"], second["target"]) == ("2", "[]")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (answer(13, "red"), "answer 'red' does not stand at 13 of the context"),
        (answer(-4, "red"), "does not stand"),
        (answer("12", "red"), "lacks answer_start or text"),
        (answer(12, ""), "lacks answer_start or text"),
        ({"id": "q", "question": "Why?", "answers": []}, "target is missing"),
        ({"id": "q", "answers": [{"answer_start": 12, "text": "red"}]}, "question is missing"),
        ("why", "question is missing"),
    ],
)
def test_a_bad_question_costs_only_itself(write: Write, rows_of: Rows, question: Any, why: str) -> None:
    bad, good = rows_of(write("a.json", document(question, answer(12, "red"))))
    assert why in bad["problem"]
    assert "target" not in bad or "question" in why
    assert "problem" not in good


def test_an_article_without_paragraphs_is_not_lost(write: Write, rows_of: Rows) -> None:
    path = write("a.json", '{"data": [{"title": "a", "paragraphs": []}, 7, {"paragraphs": [{"context": "c"}]}]}')
    assert [row["problem"] for row in rows_of(path, "squad")] == [
        "article has no paragraphs", "article has no paragraphs", "paragraph has no questions (qas)",
    ]  # fmt: skip


def test_a_target_is_what_the_contract_asks_for(write: Write, rows_of: Rows) -> None:
    (row,) = rows_of(write("a.json", document(answer(12, "red"))))
    assert target_error("qa", [], row["target"], row["text"], row["text_pair"]) is None


@pytest.mark.parametrize("cut", [1, 30, 120])
def test_a_truncated_document_is_refused(write: Write, rows_of: Rows, cut: int) -> None:
    with pytest.raises(DataError, match="not JSON that can be read"):
        rows_of(write("a.json", document(answer(12, "red"))[: -cut - 20]), "squad")
