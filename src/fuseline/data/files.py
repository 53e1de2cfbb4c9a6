"""Open files of a batch, and nothing else: no other folder, no device, no pipe, nothing that does not fit."""

from __future__ import annotations

import base64
import binascii
import os
import posixpath
import re
import stat
import urllib.parse
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from fuseline.data.urls import hide_secrets
from fuseline.errors import DataError

MAX_FILE_BYTES = 256 << 20
"""A picture of 64 MP or two hours of speech fit; a file above it is not one example's."""
CHUNK = 1 << 20
"""Bytes that are read or written at once."""
MAX_RECORD_BYTES = 64 << 20
"""A line or a JSON element above it is refused unread: parsed, it may take twenty times its size."""

MAX_SHOWN = 4096
"""Characters of a cell that are looked at for a message."""

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".heic",
    ".heif", ".avif", ".jp2", ".ico",
})  # fmt: skip
AUDIO_SUFFIXES = frozenset({
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".wma", ".w64",
})  # fmt: skip
MEDIA_SUFFIXES = IMAGE_SUFFIXES | AUDIO_SUFFIXES


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case, with its dot."""
    return posixpath.splitext(name)[1].lower()


def list_files(root: Path) -> list[str]:
    """List all names below a folder that are not plain folders, sorted; hidden ones are left out, links not followed.

    Raises:
        DataError: a folder cannot be listed.
    """
    found: list[str] = []
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        below = Path(folder)
        links = [name for name in folders if (below / name).is_symlink()]
        names = [name for name in (*files, *links) if not _is_hidden(name)]
        found += [(below / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX", "_SUCCESS"))


def open_file(root: Path, name: str, limit: int | None = None) -> BufferedReader:
    """Open a file of the batch in `root`.

    Args:
        name: as the batch gives it, relative to `root`, with slashes of either kind.
        limit: size in bytes above which it is refused.

    Raises:
        DataError: the name leads out of the batch, or to nothing, or to what is no regular file of that size.
    """
    try:
        path = _inside(root, name)
        _check_regular(name, os.lstat(path), limit)  # before it is opened: that may set a device to work
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DataError(f"{clip(name)!r} is not found in the batch") from None
    except OSError as error:
        raise DataError(f"{clip(name)!r} cannot be read ({error.strerror})") from None
    except ValueError:
        raise DataError(f"{clip(name)!r} holds characters that no file's name has") from None
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(name, os.fstat(descriptor), limit)  # what was opened is what was looked at
    except DataError:
        file.close()
        raise
    return file


def read_file(root: Path, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of the batch in `root`; raises as open_file does."""
    with open_file(root, name, limit) as file:
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)  # as much is set aside, however small it is
    if len(data) > limit:  # it grew since
        raise DataError(f"{clip(name)!r} is larger than {limit:,} bytes")
    return data


def _inside(root: Path, name: str) -> str:
    """Return the real path of a name, links resolved, that stays below `root`."""
    plain = name.replace("\\", "/")
    if "\0" in name:
        raise DataError("name holds a NUL character")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", plain):
        raise DataError(f"{clip(name)!r} is a URL; only files inside the batch are read")
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
        raise DataError(f"{clip(name)!r} is an absolute path; expected one relative to the batch")
    plain = posixpath.normpath(plain)
    if plain.split("/")[0] == "..":
        raise DataError(f"{clip(name)!r} leads out of the batch")
    if any(part.startswith(".") for part in plain.split("/") if part != "."):
        raise DataError(f"{clip(name)!r} is hidden; only visible files of the batch are read")
    home = os.path.realpath(root)
    real = _resolved(home, plain)
    if real != home and not real.startswith(home.rstrip("/") + "/"):
        raise DataError(f"{clip(name)!r} is a link out of the batch; put the file itself there")
    return real


def _resolved(home: str, name: str) -> str:
    """Return a real path; most names hold no link, and to see that costs a third of resolving one."""
    path = home
    for part in name.split("/"):
        path += "/" + part
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return os.path.realpath(f"{home}/{name}")
    return path


def _check_regular(name: str, status: os.stat_result, limit: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{clip(name)!r} is a folder; expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{clip(name)!r} is a device, a pipe, a socket or a circle of links; expected a file")
    if limit is not None and status.st_size > limit:
        raise DataError(f"{clip(name)!r} has {status.st_size:,} bytes; at most {limit:,} are read")


def clip(text: str, size: int = 100) -> str:
    """Shorten what a batch holds for a message, and hide what is secret in a URL."""
    text = hide_secrets(text[:MAX_SHOWN])
    return text if len(text) <= size else text[:size] + "…"


def decode_data_uri(uri: str) -> bytes:
    """Return the bytes that a `data:` URI holds (RFC 2397).

    Raises:
        DataError: it is not well formed.
    """
    head, comma, body = uri.partition(",")
    if not comma:
        raise DataError(f"data URI has no comma: {clip(uri, 40)!r}")
    if not head.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        return base64.b64decode(re.sub(r"\s|%0[AaDd]", "", body), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise DataError(f"data URI is not base64: {error}") from None


def iter_lines(file: BufferedReader, limit: int = MAX_RECORD_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line's number and bytes, without a byte-order mark; None for a line above `limit` bytes."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := file.readline(CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def refuse_utf16(head: bytes, name: str) -> None:
    """Refuse a file that begins with the byte-order mark of UTF-16 or UTF-32, as spreadsheets write it.

    Raises:
        DataError: it does.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise DataError(f"{name}: encoded in UTF-16 or UTF-32; save it as UTF-8")
