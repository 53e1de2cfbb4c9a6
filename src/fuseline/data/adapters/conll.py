"""CoNLL: a token a line, its tag last, a blank line between sentences; any scheme of IO, IOB1, BIO and BIOES.

The text is the tokens joined by one space, so that they can be told apart again; the target holds the spans.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from fuseline.data.adapters.sources import batch_files
from fuseline.data.drafts import MAX_CHARS, Row, to_tables

TAG = re.compile(r"O|[BIESLUM]-\S+")
Line = tuple[int, str, str]
"""Number, token, tag."""


def fits(head: bytes) -> bool:
    """Tell whether the beginning of a file has tokens with tags."""
    rows = [line.split() for line in head.decode("utf-8", "replace").splitlines()[:200] if line.strip()]
    tagged = sum(len(row) >= 2 and TAG.fullmatch(row[-1]) is not None for row in rows)
    return len(rows) > 0 and tagged >= 0.9 * len(rows)


def read(path: Path, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the sentences of a file, or of all `.conll`, `.bio`, `.iob` and `.txt` files of a folder."""
    del columns  # the form itself says what stands where
    for file in batch_files(path, (".conll", ".bio", ".iob", ".txt")):
        yield from to_tables(_rows(file))


def _rows(file: Path) -> Iterator[Row]:
    for number, sentence in enumerate(_sentences(file), start=1):
        yield _to_row(sentence, f"{file.stem}-{number}", file.name)


def _sentences(file: Path) -> Iterator[list[tuple[int, str]]]:
    """Yield the numbered lines of each sentence."""
    held: list[tuple[int, str]] = []
    size = 0
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as source:
        number = 0
        while line := source.readline(MAX_CHARS):
            number += 1
            if not line.strip() or line.startswith("-DOCSTART-"):
                if held:
                    yield held
                held, size = [], 0
            elif size < MAX_CHARS:
                held.append((number, line.rstrip("\r\n")))
                size += len(line)
    if held:
        yield held


def _to_row(sentence: Sequence[tuple[int, str]], name: str, file: str) -> Row:
    where = f"{file}, line {sentence[0][0]}"
    row: Row = {"id": name, "where": where}
    tokens, tags = [], []
    for number, line in sentence:
        cells = line.split("\t") if "\t" in line else line.split()
        tag = cells[-1].strip() if len(cells) > 1 else ""
        token = cells[0].strip()
        if not token or not TAG.fullmatch(tag) or len(token.split()) != 1:
            problem = f"line {number}: expected a token and a tag such as B-PER or O, found {line[:80]!r}"
            return row | {"problem": problem, "text": " ".join(text for _, text in sentence)[:2000]}
        if any("\ud800" <= char <= "\udfff" for char in line):
            return row | {"problem": f"line {number}: bytes that are not UTF-8"}
        tokens.append(token)
        tags.append(tag)
    return row | {"text": " ".join(tokens), "target": json.dumps(to_spans(tokens, tags), ensure_ascii=False)}


def to_spans(tokens: Sequence[str], tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Turn tags into [start, end, label] character spans of the joined tokens.

    A span begins at B, S or U, where the label changes, and where an I follows none; it ends at E, L, S or U.
    """
    spans: list[tuple[int, int, str]] = []
    open_ = False
    at = 0
    for token, tag in zip(tokens, tags, strict=True):
        kind, _, label = tag.partition("-")
        if kind == "O":
            open_ = False
        elif kind in "BSU" or not open_ or spans[-1][2] != label:
            spans.append((at, at + len(token), label))
            open_ = kind not in "SUEL"
        else:
            spans[-1] = (spans[-1][0], at + len(token), label)
            open_ = kind not in "EL"
        at += len(token) + 1
    return spans
