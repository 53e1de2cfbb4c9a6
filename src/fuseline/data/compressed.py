"""Rows in a compressed file, read as if it were not: unpacked as they are read, and no more than is allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from fuseline.data.files import CHUNK, clip, open_file, suffix_of
from fuseline.data.unpack import MAX_RATIO, most_bytes
from fuseline.errors import DataError

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def plain_name(name: str) -> str:
    """Return a file's name without the suffix that says it is compressed."""
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in _OPENERS else name


def open_rows(root: Path, name: str) -> BufferedReader:
    """Open a file of the batch in `root` that holds rows, and unpack it on the way where its name says so.

    Raises:
        DataError: as `files.open_file` does; while it is read: it is broken, or unpacks to more than MAX_RATIO times
            its size.
    """
    file = open_file(root, name)
    opener = _OPENERS.get(suffix_of(name))
    if opener is None:
        return file
    limit = most_bytes(os.fstat(file.fileno()).st_size)
    return BufferedReader(_Unpacked(file, opener(file, "rb"), name, limit), CHUNK)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, up to a limit in bytes."""

    def __init__(self, file: IO[bytes], inner: IO[bytes], name: str, limit: int) -> None:
        self.file, self.inner, self.name, self.left = file, inner, name, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.inner.read(len(buffer))
        except _BROKEN as error:
            raise DataError(f"{clip(self.name)}: cannot be unpacked: {error or type(error).__name__}") from error
        self.left -= len(data)
        if self.left < 0:
            raise DataError(
                f"{clip(self.name)}: unpacks to more than {MAX_RATIO} times its size; a decompression bomb is not read"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.inner.close()
        self.file.close()
        super().close()
