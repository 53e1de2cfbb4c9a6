"""Files that a batch names: read from inside the batch, and from nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from fuseline.errors import DataError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
AUDIOS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"})
"""Endings by which a file of unknown kind is told."""
MAX_BYTES = 256 << 20
"""Size beyond which a picture or recording is not read."""


def read_file(root: Path, value: Any, base: Path) -> bytes:
    """Return a file's bytes, given as themselves, as {bytes, path}, or as a path relative to `base`, inside `root`.

    Raises:
        DataError: the path is absolute or leads out of `root`, there is no such file, it is none, or it is too large.
    """
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_BYTES:
            raise DataError(f"{len(value):,} bytes; more than {MAX_BYTES:,} are not read")
        return value
    if not isinstance(value, str):
        raise DataError(f"expected a path or bytes, found {type(value).__name__}")
    return _read(inside(root, value, base), value)


def inside(root: Path, name: str, base: Path) -> Path:
    """Resolve a path of the batch, relative to `base`.

    Raises:
        DataError: it is absolute, leads out of `root` by itself or by a link, or cannot be a path.
    """
    try:
        if Path(name).is_absolute() or name.startswith("~") or "\\" in name or "://" in name:
            raise DataError(f"{_short(name)} is not a path relative to the batch")
        home = root.resolve()
        path = (base.resolve() / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{_short(name)} cannot be a path ({error})") from error
    if not path.is_relative_to(home):
        raise DataError(f"{_short(name)} leads out of the batch; it was not read")
    return path


def _read(path: Path, name: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{_short(name)} is not a file")
            if about.st_size > MAX_BYTES:
                raise DataError(f"{_short(name)} has {about.st_size:,} bytes; more than {MAX_BYTES:,} are not read")
            return file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{_short(name)} cannot be read ({why})") from error


def _short(name: str) -> str:
    shown = repr(name)
    return shown if len(shown) <= 120 else f"{shown[:117]}…'"
