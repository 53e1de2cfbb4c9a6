"""Bring a batch to a local folder: from any place that fsspec knows, and out of an archive."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from fuseline.data.files import CHUNK
from fuseline.data.unpack import MAX_BYTES, MAX_FILES, Bounds, is_archive, unpack
from fuseline.data.urls import clean_url
from fuseline.errors import DataError

AT_ONCE = 256
"""Files that are asked for together: one after the other, a store takes minutes for a thousand."""

Found = tuple[str, str, int]
"""Path in the store, name in the batch, size in bytes."""


def fetch(
    source: str | Path,
    scratch: Path,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Return a local folder or file that holds a batch: as it is, or below `scratch` if it had to be brought there.

    Args:
        source: a path, or a URL of a folder or a file; zip and tar archives are unpacked.
        scratch: an empty folder.
        options: for the file system, over those of fsspec's own configuration; never recorded.

    Raises:
        DataError: it is not there, cannot be reached, or is larger than allowed.
    """
    bounds = Bounds(max_files, max_bytes)
    path = _local(source)
    if path is None:
        path = _download(str(source), scratch / "fetched", bounds, options or {})
    elif not path.exists():
        raise DataError(f"{clean_url(source)}: not found; expected a batch, as a folder, a file or a URL")
    if path.is_file() and is_archive(path.name):
        unpack(path, scratch / "unpacked", bounds)
        return scratch / "unpacked"
    return path


def _local(source: str | Path) -> Path | None:
    """Return a local path; None if the source is elsewhere."""
    if isinstance(source, Path) or "://" not in source:
        return Path(source)
    protocol, _, rest = source.partition("://")
    return Path(rest) if protocol.lower() in ("file", "local") else None


def _download(url: str, folder: Path, bounds: Bounds, options: Mapping[str, Any]) -> Path:
    if "::" in url:
        raise DataError(f"{clean_url(url)}: chained URLs are not taken; name the file or folder itself")
    try:
        store, root = fsspec.core.url_to_fs(url, **options)
        return _copy(store, root.rstrip("/"), folder, bounds)
    except DataError as error:
        raise DataError(f"{clean_url(url)}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{clean_url(url)}: not found") from None
    except _failures() as error:  # from None: the trace of the store's own error may show what the URL holds
        raise DataError(f"{clean_url(url)}: cannot be fetched: {_scrubbed(error, url, options)}") from None


_TREES = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"), ("aiohttp", "ClientError"))
"""Errors of libraries that have trees of their own."""


def _failures() -> tuple[type[BaseException], ...]:
    """Return what file systems raise for failures that are not ours; ImportError: a protocol's library is missing."""
    own = [getattr(sys.modules[module], name) for module, name in _TREES if module in sys.modules]
    return (ImportError, OSError, ValueError, TypeError, RuntimeError, *own)


def _scrubbed(error: BaseException, url: str, options: Mapping[str, Any]) -> str:
    """Return an error's text without the secrets of the URL and the options, whole or in part."""
    text = str(error) or type(error).__name__
    hidden = set(re.split(r"[?#&=@:/]", url)) - set(re.split(r"[/:]", clean_url(url)))
    hidden |= {value for value in options.values() if isinstance(value, str)}
    for part in sorted([url, *hidden], key=len, reverse=True):
        if len(part) >= 3:
            text = text.replace(part, "…")
    return text[:300]


def _copy(store: Any, root: str, folder: Path, bounds: Bounds) -> Path:
    store.invalidate_cache()  # what it listed before need not be all that is there now
    target = folder / _checked(re.split(r"[?#]", clean_url(root))[0].rpartition("/")[2] or "batch")
    folder.mkdir(parents=True)
    if store.info(root)["type"] != "directory":
        bounds.add_file()
        _stream(store, root, target, bounds)
        return target
    files = iter(_listed(store, root))
    while some := list(islice(files, AT_ONCE)):
        _get(store, some, target, bounds)
    if not bounds.written_files:
        raise DataError("no file is there")
    return target


def _stream(store: Any, path: str, target: Path, bounds: Bounds) -> None:
    """Download one file, whatever size it turns out to have."""
    with store.open(path, "rb") as source, target.open("xb") as file:
        while data := source.read(CHUNK):
            bounds.add(len(data), target.parent)
            file.write(data)


def _listed(store: Any, root: str) -> Iterator[Found]:
    """List files below a folder, a folder at a time: what is too many shows before all are listed."""
    for _, _, files in store.walk(root, detail=True):
        for entry in files.values():
            name = entry["name"].removeprefix(root).removeprefix("/")
            if name and not name.endswith("/"):  # the empty objects that stand for folders in a store
                yield entry["name"], _checked(name), entry["size"] or 0


def _checked(name: str) -> str:
    parts = name.split("/")
    if "\0" in name or "\\" in name or not all(parts) or {".", ".."} & set(parts):
        raise DataError(f"{name[:100]!r} cannot be a file's name here")
    return name


def _get(store: Any, found: Sequence[Found], folder: Path, bounds: Bounds) -> None:
    """Download some files; what a store says of sizes is checked before, and what came after."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / name for _, name, _ in found]
    for target, (_, _, size) in zip(targets, found, strict=True):
        bounds.add_file()
        bounds.add(size, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
    store.get([path for path, _, _ in found], [str(target) for target in targets])
    for target, (_, name, size) in zip(targets, found, strict=True):
        if not target.is_file():
            raise DataError(f"{name[:100]!r} did not come")
        bounds.add(max(target.stat().st_size - size, 0), folder)
