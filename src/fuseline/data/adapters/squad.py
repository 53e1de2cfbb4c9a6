"""Questions and answers in SQuAD's JSON (Rajpurkar et al. 2016; without an answer, version 2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuseline.data.adapters.sources import batch_files
from fuseline.data.drafts import Row, to_tables
from fuseline.errors import DataError

MAX_FILE = 1 << 30
"""Bytes of a JSON document beyond which it is not read: it has to be held in memory whole."""


def fits(head: bytes) -> bool:
    """Tell whether the beginning of a file looks like SQuAD."""
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and b'"paragraphs"' in head


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield a row per question: text the question, text_pair the paragraph, group the paragraph's article."""
    del columns
    for file in batch_files(path, (".json",)):
        yield from to_tables(_rows(file))


def read_json(file: Path) -> Any:
    """Read a JSON document.

    Raises:
        DataError: it is too large, not UTF-8 or not JSON.
    """
    if file.stat().st_size > MAX_FILE:
        raise DataError(f"{file}: {file.stat().st_size:,} bytes; a JSON document above {MAX_FILE:,} is not read")
    try:
        return json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {error}") from error


def _rows(file: Path) -> Iterator[Row]:
    document = read_json(file)
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list):
        raise DataError(f"{file}: expected an object with a list under 'data', as SQuAD has it")
    for number, article in enumerate(articles, start=1):
        where = f"{file.name}, article {number}"
        title = str(_get(article, "title", f"article {number}"))
        paragraphs = _get(article, "paragraphs", None)
        if not isinstance(paragraphs, list):
            yield {"where": where, "problem": "no list of paragraphs"}
            continue
        for paragraph in paragraphs:
            questions = _get(paragraph, "qas", None)
            if not isinstance(questions, list):
                yield {"where": where, "problem": "a paragraph without a list of questions"}
                continue
            for question in questions:
                yield _to_row(question, _get(paragraph, "context", None), title, where)


def _to_row(question: Any, context: Any, title: str, where: str) -> Row:
    name, text = _get(question, "id", None), _get(question, "question", None)
    answers = _get(question, "answers", [])
    row: Row = {"id": name, "group": title, "where": f"{where}, question {name}", "meta": {"title": title}}
    if not (isinstance(text, str) and isinstance(context, str) and isinstance(answers, list)):
        return row | {"problem": "expected a question, its paragraph's context and a list of answers"}
    spans = [[_get(answer, "answer_start", None), _get(answer, "text", None)] for answer in answers]
    distinct = [span for number, span in enumerate(spans) if span not in spans[:number]]
    return row | {"text": text, "text_pair": context, "target": json.dumps(distinct, ensure_ascii=False)}


def _get(value: Any, key: str, default: Any) -> Any:
    return value.get(key, default) if isinstance(value, dict) else default
