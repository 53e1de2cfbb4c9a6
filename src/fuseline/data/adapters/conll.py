"""CoNLL: a token a line, its tag last, an empty line after each sentence; any of the tagging schemes in use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from fuseline.data.columns import refuse_columns
from fuseline.data.compressed import open_rows
from fuseline.data.drafts import Row, to_tables
from fuseline.data.files import clip, iter_lines, refuse_utf16
from fuseline.data.tabular import Batch

TAG = re.compile(r"O|[BIESLUM]-\S+")
"""IO, IOB1, BIO, BIOES, BILOU: outside, or a place in a span and its label."""

MAX_SENTENCE_BYTES = 1 << 20
"""What is longer is no sentence: blank lines are missing."""

DOCUMENT = re.compile(rb"(\xef\xbb\xbf)?(-DOCSTART-|# newdoc\b)")
"""A line that begins a document, as CoNLL-2003 and CoNLL-U write it."""

Line = tuple[int, str]
Span = tuple[int, int, str]


def read(batch: Batch, name: str, split: str | None = None) -> Iterator[pa.Table]:
    """Read one file: a sentence is an example, its text the tokens with a space between any two.

    Where the file tells its documents apart, the sentences of one are a group.
    """
    refuse_columns(batch.columns, "CoNLL")
    with open_rows(batch.root, name) as file:
        refuse_utf16(file.peek(4), name)
        grouped = any(map(DOCUMENT.match, (line for _, line in iter_lines(file, MAX_SENTENCE_BYTES) if line)))
    with open_rows(batch.root, name) as file:
        sentences = _sentences(iter_lines(file, MAX_SENTENCE_BYTES))
        yield from to_tables(
            {**_row(name, lines, split), "group": f"{name}, document {document}" if grouped else None}
            for document, lines in sentences
        )


def _sentences(lines: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, list[Line]]]:
    """Yield each sentence's lines, with the number of its document, 0 for what stands before the first mark.

    A sentence that grows too long is cut, in lines that no rule holds for.
    """
    held: list[Line] = []
    size = document = 0
    for number, data in lines:
        line = "" if data is None else data.decode("utf-8", "surrogateescape").strip(" \t\r\n")
        begins = data is not None and DOCUMENT.match(data) is not None
        if data is None or size > MAX_SENTENCE_BYTES:
            held.append((number, ""))
        elif line and not begins:
            if held or not _is_comment(line):
                held.append((number, line))
                size += len(data)
            continue
        if held:
            yield document, held
        held, size = [], 0
        document += begins
    if held:
        yield document, held


def _is_comment(line: str) -> bool:
    return line.startswith("# ") and not TAG.fullmatch(_columns(line)[-1])


def _columns(line: str) -> list[str]:
    """Split at tabs where there are any, or else at spaces; a token may hold any other kind of blank."""
    return re.split(r" *\t[ \t]*" if "\t" in line else " +", line)


def _row(name: str, lines: Sequence[Line], split: str | None) -> Row:
    where = f"{name}, line {lines[0][0]}"
    parts = [_columns(line) for _, line in lines]
    problem = next(filter(None, (_problem(n, part) for (n, _), part in zip(lines, parts, strict=True))), None)
    tokens = [part[0] for part in parts]
    found = {"text": " ".join(tokens), "split": split, "where": where, "problem": problem}
    if problem:
        return found
    return found | {"target": json.dumps(to_spans(tokens, [part[-1] for part in parts]), ensure_ascii=False)}


def _problem(number: int, part: Sequence[str]) -> str | None:
    if part == [""]:
        return f"line {number}: sentence or line is longer than {MAX_SENTENCE_BYTES:,} bytes"
    if len(part) < 2:
        return f"line {number}: {clip(part[0], 40)!r} stands alone; expected a token and its tag"
    if " " in part[0]:
        return f"line {number}: token {clip(part[0], 40)!r} holds a space"
    if not TAG.fullmatch(part[-1]):
        return f"line {number}: tag {clip(part[-1], 40)!r} is not O or a prefix and a label, such as B-PER"
    return None


def to_spans(tokens: Sequence[str], tags: Sequence[str]) -> list[Span]:
    """Return the character spans that tags mark in tokens joined with spaces.

    A span begins at B, S or U, after E, S or L, and wherever the label changes, so that each scheme, or a mixture of
    them, is read as conlleval does (Tjong Kim Sang and Buchholz 2000).
    """
    spans: list[Span] = []
    start = 0
    before, label_before = "O", ""
    for token, tag in zip(tokens, tags, strict=True):
        prefix, _, label = tag.partition("-")
        end = start + len(token)
        if prefix != "O":
            if prefix in "BSU" or before in "OESLU" or label != label_before:
                spans.append((start, end, label))
            else:
                spans[-1] = (spans[-1][0], end, label)
        before, label_before = prefix, label
        start = end + 1
    return spans
