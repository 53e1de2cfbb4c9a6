"""Unpack zip and tar archives that may be hostile: nothing lands outside, no links, and no more than is allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from fuseline.data.files import CHUNK
from fuseline.errors import DISK_FULL, DataError, is_disk_full

MAX_FILES = 1_000_000
"""Ten times the 100,000 pictures that one batch is made for; more is several batches."""
MAX_BYTES = 50 << 30
"""A million pictures of 50 KB."""
MAX_RATIO = 200
"""Text packs ten to fifty to one; what packs tighter than this was made to."""
FREE_BYTES = 256 << 20
"""As much stays free on the disk."""
NO_BOMB_BYTES = 64 << 20
"""Up to this size, nothing is a bomb."""

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, RecursionError, OSError,
)  # fmt: skip


@dataclass
class Bounds:
    """How much may still be written, to disk or from the network."""

    files: int = MAX_FILES
    size: int = MAX_BYTES
    written_files: int = field(default=0, init=False)
    written: int = field(default=0, init=False)

    def add_file(self) -> None:
        """Count one more file.

        Raises:
            DataError: it is one too many.
        """
        self.written_files += 1
        if self.written_files > self.files:
            raise DataError(f"more than {self.files:,} files; split it into several batches")

    def add(self, size: int, folder: Path) -> None:
        """Count bytes that are about to be written into a folder.

        Raises:
            DataError: they are too many, for the batch or for the disk.
        """
        self.written += size
        if self.written > self.size:
            raise DataError(f"more than {self.size:,} bytes; split it into several batches")
        if size > shutil.disk_usage(folder).free - FREE_BYTES:
            raise DataError(DISK_FULL)


def is_archive(name: str) -> bool:
    """Tell an archive by its name."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, bounds: Bounds) -> None:
    """Unpack an archive into a new folder; where it is refused, nothing of it is left.

    Raises:
        DataError: it is broken, encrypted or too large, or holds a link, a device, or a name that leads out or comes
            twice.
    """
    folder.mkdir(parents=True)
    try:
        _write(archive, folder, bounds)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, DataError):
            raise DataError(f"{archive.name}: {error}") from None
        if isinstance(error, _BROKEN) and not is_disk_full(error):
            raise DataError(f"{archive.name}: cannot be unpacked: {error or type(error).__name__}") from error
        raise


def most_bytes(size: int) -> int:
    """Return how many bytes a packed file of this size may hold: with more it is taken for a bomb."""
    return max(NO_BOMB_BYTES, MAX_RATIO * size)


def _write(archive: Path, folder: Path, bounds: Bounds) -> None:
    limit = most_bytes(archive.stat().st_size)
    total = 0
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    with closing(members(archive)) as found:
        for name, size, opener in found:
            total += size
            if total > limit:
                raise DataError(f"unpacks to more than {MAX_RATIO} times its size; a decompression bomb is not read")
            target = folder / _safe(name)
            bounds.add_file()  # empty folders fill a disk as well
            bounds.add(size, folder)
            if opener is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(opener, target, size, name)


def _copy(opener: Callable[[], IO[bytes]], target: Path, size: int, name: str) -> None:
    """Write a member of the size that it was said to have, and no other."""
    try:
        file = target.open("xb")
    except FileExistsError:
        raise DataError(f"{name[:100]!r} is in it twice") from None
    with file, opener() as source:
        left = size
        while left and (data := source.read(min(CHUNK, left))):
            file.write(data)
            left -= len(data)
        if left or source.read(1):
            raise DataError(f"{name[:100]!r} has not the size that is said")


def _safe(name: str) -> str:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or ":" in parts[0]:
        raise DataError(f"{name[:100]!r} leads out of the archive, or is no plain name")
    return "/".join(part for part in parts if part not in ("", "."))


Member = tuple[str, int, Callable[[], IO[bytes]] | None]
"""Name, size, and what opens it; None for a folder."""


def _zip_members(path: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{info.filename[:100]!r} is a link or a device; only files and folders are unpacked")
            if info.flag_bits & 1:
                raise DataError(f"{info.filename[:100]!r} is encrypted; send it as it is")
            yield info.filename, info.file_size, None if info.is_dir() else partial(archive.open, info)


def _tar_members(path: Path) -> Generator[Member, None, None]:
    with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if not (member.isreg() or member.isdir()):
                raise DataError(f"{member.name[:100]!r} is a link or a device; only files and folders are unpacked")
            if member.size < 0:
                raise DataError(f"{member.name[:100]!r} has no size")
            opener: Any = partial(archive.extractfile, member) if member.isreg() else None
            yield member.name, member.size if opener else 0, opener
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all otherwise


class _Careful(io.RawIOBase):
    """A stream of which nobody reads much at once: a header that asks for gigabytes is not believed."""

    def __init__(self, inner: IO[bytes]) -> None:
        self.inner = inner

    def read(self, size: int = -1) -> Any:
        if not 0 <= size <= 2 * CHUNK:
            raise DataError("a header of its is too large")
        return self.inner.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.inner.seek(offset, whence)

    def tell(self) -> int:
        return self.inner.tell()


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    name = path.name.lower()
    openers: dict[tuple[str, ...], Any] = {
        (".gz", ".tgz"): gzip.open, (".bz2", ".tbz2"): bz2.open, (".xz", ".txz"): lzma.open,
    }  # fmt: skip
    opener = next((opener for suffixes, opener in openers.items() if name.endswith(suffixes)), open)
    with opener(path, "rb") as inner:
        yield _Careful(inner)  # type: ignore[misc]
