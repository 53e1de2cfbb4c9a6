"""SQuAD's JSON (1.1 and 2.0): questions on paragraphs, an answer each is a span of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from fuseline.data.adapters.json_stream import iter_items
from fuseline.data.cells import to_json
from fuseline.data.columns import refuse_columns
from fuseline.data.compressed import open_rows
from fuseline.data.drafts import Row, join, to_tables
from fuseline.data.tabular import Batch


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file: a question is an example, grouped by article as the paragraphs of one repeat each other."""
    refuse_columns(batch.columns, "SQuAD")
    with open_rows(batch.root, name) as file:
        articles = (article for article, _ in iter_items(file, name, "data"))
        rows = (row for number, article in enumerate(articles, start=1) for row in _article(name, number, article))
        yield from to_tables({"split": split} | dict(row) for row in rows)


def _article(name: str, number: int, article: Any) -> Iterator[Row]:
    where = f"{name}, article {number}"
    paragraphs = _list(article, "paragraphs")
    if not paragraphs:
        yield {"where": where, "problem": "article has no paragraphs"}
    for place, paragraph in enumerate(paragraphs, start=1):
        questions = _list(paragraph, "qas")
        if not questions:
            yield {"where": f"{where}, paragraph {place}", "problem": "paragraph has no questions (qas)"}
        for at, question in enumerate(questions, start=1):
            yield {
                "where": f"{where}, paragraph {place}, question {at}",
                "group": _text(article, "title"),
            } | _question(paragraph, question)


def _question(paragraph: Any, question: Any) -> dict[str, Any]:
    context, text = _text(paragraph, "context"), _text(question, "question")
    target, problem = _answers(question, context or "")
    row = {
        "id": _text(question, "id"),
        "text": text,
        "text_pair": context,
        "problem": join(
            None if context else "context is missing", None if text is not None else "question is missing", problem
        ),
    }
    return row if target is None else row | {"target": target}


def _answers(question: Any, context: str) -> tuple[str | None, str | None]:
    """Return the answers, any of which is right, as a target; and what is wrong."""
    answers = _list(question, "answers")
    if _get(question, "is_impossible") is True:
        return "[]", None
    if not answers:
        return None, "target is missing: no answer is given, and is_impossible is not true"
    found: list[list[Any]] = []
    for answer in answers:
        start, text = _get(answer, "answer_start"), _text(answer, "text")
        if type(start) is not int or not text:
            return None, "answer lacks answer_start or text"
        if start < 0 or not context.startswith(text, start):
            return None, f"answer {text[:60]!r} does not stand at {start} of the context"
        if [start, text] not in found:
            found.append([start, text])
    return to_json(found), None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _list(value: Any, key: str) -> list[Any]:
    found = _get(value, key)
    return found if isinstance(found, list) else []


def _text(value: Any, key: str) -> str | None:
    found = _get(value, key)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found else None
