"""Elements of a JSON document's array, one at a time: a large export need not fit in memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from fuseline.data.adapters.lines import DECODER
from fuseline.data.files import CHUNK, MAX_RECORD_BYTES, refuse_utf16
from fuseline.errors import DataError

_BLANK = re.compile(r"[ \t\n\r]*")


def iter_items(file: BufferedReader, name: str, key: str | None = None) -> Iterator[tuple[Any, int]]:
    """Yield the elements of a document that is an array, or of the array under `key` of one that is an object.

    Each comes with the number of characters that it took.

    Raises:
        DataError: it is no such document, broken, or an element is longer than MAX_RECORD_BYTES.
    """
    refuse_utf16(file.peek(4), name)
    text = _Text(file, name)
    if key is not None:
        text.enter(key)
    text.take("[")
    if text.peek() == "]":
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            break
    if key is None and text.peek():
        raise DataError(f"{name}: more stands after the end of the array")


class _Text:
    """The part of a document that has been read and not yet used."""

    def __init__(self, file: BufferedReader, name: str) -> None:
        self.file, self.name = file, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.text, self.at, self.used = "", 0, 0
        self.ended = False

    def more(self, size: int = CHUNK) -> None:
        """Read on."""
        data = self.file.read(size)
        self.ended = not data
        self.used += self.at
        self.text = self.text[self.at :] + self.decoder.decode(data, final=self.ended)
        self.at = 0

    def peek(self) -> str:
        """Return the next character that is not blank; "" at the end."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def take(self, expected: str) -> str:
        """Take one character of those expected."""
        found = self.peek()
        if not found or found not in expected:
            what = f"{found!r}" if found else "the end of the file"
            raise self.broken(f"expected {' or '.join(expected)}, found {what}")
        self.at += 1
        return found

    def value(self) -> tuple[Any, int]:
        """Take a value, and say how long it is."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # or else a number may go on
                    size, self.at = end - self.at, end
                    return value, size
            except RecursionError:
                raise self.broken("nested too deeply") from None
            except ValueError as error:
                if self.ended:
                    raise self.broken(str(error)) from None
            held = len(self.text) - self.at
            if held > MAX_RECORD_BYTES:
                raise self.broken(f"an element that is broken, or longer than {MAX_RECORD_BYTES:,} characters")
            self.more(max(CHUNK, held))

    def enter(self, key: str) -> None:
        """Take all of an object up to the value of a key."""
        self.take("{")
        while True:
            found, _ = self.value()
            self.take(":")
            if found == key:
                return
            self.value()
            if self.take(",}") == "}":
                raise DataError(f"{self.name}: has no {key!r}")

    def broken(self, why: str) -> DataError:
        """Say where the document is broken."""
        return DataError(f"{self.name}: not JSON that can be read, after character {self.used + self.at:,}: {why}")
