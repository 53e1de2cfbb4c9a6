"""Bring a batch to a local folder: from any fsspec URL, out of an archive, within bounds."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import fsspec

from fuseline.data.files import inside
from fuseline.errors import DataError

MAX_BYTES = 64 << 30
"""Bytes that a batch may have, downloaded or unpacked."""
MAX_FILES = 2_000_000
"""Files that a batch may have."""
MAX_RATIO = 200
"""How many times its size an archive may unpack to beyond the first 100 MB: pictures do not shrink, bombs do."""
_FREE = 100 << 20


def fetch(batch: str, scratch: Path) -> Path:
    """Return a local file or folder with the batch.

    Args:
        batch: a local path, or any fsspec URL such as s3://bucket/folder.
        scratch: an empty folder to download and unpack to.

    Raises:
        DataError: it is not there, cannot be read, or is out of bounds.
    """
    path = _download(batch, scratch / "download") if "://" in batch or batch.startswith("memory:") else Path(batch)
    if not path.exists():
        raise DataError(f"{clean_url(batch)}: there is no such file or folder")
    if path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path)):
        return unpack(path, scratch / "unpacked")
    return path


def clean_url(batch: str) -> str:
    """Take user, password and query out of a URL: it goes into messages and records."""
    if "://" not in batch:
        return batch
    parts = urlsplit(batch)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _download(url: str, target: Path) -> Path:
    shown = clean_url(url)
    try:
        files, root = fsspec.core.url_to_fs(url)
        found = _list(files, root, shown)
        for name in found:
            place = inside(target, _relative(name, root), target)
            place.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(name, str(place))
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{shown}: cannot be read ({type(error).__name__}: {_without_secrets(error, url)})") from None
    return target / PurePosixPath(root).name if [root] == found else target


def _list(files: Any, root: str, shown: str) -> list[str]:
    if files.isfile(root):
        return [root]
    sizes = {
        name: about.get("size") or 0 for name, about in files.find(root, detail=True).items() if about["type"] == "file"
    }
    if not sizes:
        raise DataError(f"{shown}: there is no such file or folder, or it is empty")
    _refuse_out_of_bounds(shown, len(sizes), sum(sizes.values()))
    return sorted(sizes)


def _relative(name: str, root: str) -> str:
    return PurePosixPath(name).name if name == root else name.removeprefix(root.rstrip("/")).lstrip("/")


def _without_secrets(error: Exception, url: str) -> str:
    return str(error).replace(url, clean_url(url))[:300]


def _refuse_out_of_bounds(shown: str, files: int, size: int) -> None:
    if files > MAX_FILES:
        raise DataError(f"{shown}: {files:,} files; a batch may have {MAX_FILES:,}: hand it in in parts, or as Parquet")
    if size > MAX_BYTES:
        raise DataError(f"{shown}: {size:,} bytes; a batch may have {MAX_BYTES:,}: hand it in in parts")


# --- archives -----------------------------------------------------------------------------------------------------

Member = tuple[str, Callable[[], IO[bytes]]]
"""Name of a file in an archive, and what opens it."""


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a .zip or .tar, compressed or not.

    Raises:
        DataError: a member lies outside, is a link or a device, or the whole is out of bounds; nothing of it is used.
    """
    limit = min(MAX_BYTES, _FREE + MAX_RATIO * archive.stat().st_size)
    size = 0
    try:
        members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        for number, (name, open_member) in enumerate(members, start=1):
            place = inside(target, name, target)
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, place.open("wb") as file:
                while block := source.read(1 << 20):
                    size += len(block)
                    if size > limit:
                        raise DataError(
                            f"{archive}: unpacks to more than {limit:,} bytes; taken for a bomb, left alone"
                        )
                    file.write(block)
            _refuse_out_of_bounds(str(archive), number, size)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    except DataError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    if not target.exists():
        raise DataError(f"{archive}: holds no file")
    inner = list(target.iterdir())
    return inner[0] if len(inner) == 1 else target


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive}: {entry.filename!r} is a link or a device; expected files alone")
            if not entry.is_dir():
                yield entry.filename, lambda entry=entry: file.open(entry)  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for entry in file:
            if not (entry.isfile() or entry.isdir()):
                raise DataError(f"{archive}: {entry.name!r} is a link or a device; expected files alone")
            if entry.isfile():
                yield entry.name, lambda entry=entry: file.extractfile(entry)  # type: ignore[misc]


def _is_tar(path: Path) -> bool:
    try:
        return path.suffix.lower() in (".tar", ".tgz", ".gz", ".bz2", ".xz") and tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return False
