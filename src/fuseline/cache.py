"""Keep what is dear to make: files named by what they were made from, and checked by what they hold.

The cache may be deleted at any time. Several runs share it: files are written whole or not at all, and never changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import fuseline
from fuseline.errors import ConfigError
from fuseline.records import digest_of, sha256_of

FOLDER = "FUSELINE_CACHE"
"""Environment variable that names the folder; else it is .fuseline/cache of the repository."""
LIMIT = "FUSELINE_CACHE_GB"
"""Environment variable with the size, in gigabytes, above which the files that were not used for longest go."""
DEFAULT_LIMIT_GB = 20.0
RECENT_S = 60
"""A file used so lately stays, whatever the bound: another run may be about to open it."""
ABANDONED_S = 24 * 3600
"""Age from which an unfinished file is taken for a killed run's."""


def find_folder() -> Path:
    """Return the cache's folder, whether it exists or not."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
    return root / ".fuseline" / "cache"


def fetch(kind: str, made_from: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return the file of what `made_from` says; if it is not there, or was damaged, make it.

    Args:
        kind: the subfolder.
        made_from: all that the content depends on, in words and digests.
        make: writes the content to the path that it is given.
    """
    return fetch_all(kind, [made_from], lambda paths: make(paths[0]))[0]


def fetch_all(kind: str, each: Sequence[Sequence[str]], make: Callable[[list[Path]], None]) -> list[Path]:
    """Return several files that are made together, as `fetch` does; if one is missing, all are made."""
    folder = find_folder() / kind
    stems = [hashlib.sha256("\0".join(made_from).encode()).hexdigest() for made_from in each]
    found = [_find(folder, stem) for stem in stems]
    if None not in found:
        return [path for path in found if path is not None]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{uuid.uuid4().hex}.part" for _ in stems]
    try:
        make(parts)
        paths = [folder / f"{stem}-{sha256_of(part)}" for stem, part in zip(stems, parts, strict=True)]
        for part, path in zip(parts, paths, strict=True):
            part.chmod(0o444)  # it may be linked to: nobody is to write into it
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    trim(find_folder())
    return paths


def _find(folder: Path, stem: str) -> Path | None:
    for path in sorted(folder.glob(f"{stem}-*")):
        if _use(path):
            return path
        path.unlink(missing_ok=True)
    return None


def link(path: Path, target: Path) -> None:
    """Put a file of the cache in another place: as a link that nobody can write into, or else as a copy."""
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)


def _use(path: Path) -> bool:
    """Say whether a file is as it was written, and note its use."""
    try:
        found = path.stat()
        if digest_of(path) != path.name.rpartition("-")[2]:
            return False
        os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
    except FileNotFoundError:  # another run removed it meanwhile
        return False
    return True


def trim(folder: Path) -> None:
    """Remove the files that were not used for longest, until the others fit; and what killed runs left."""
    files, now = [], time.time()
    for path in folder.glob("*/*"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):  # checkpoints of trainings, which go in their own time
            continue
        if path.suffix != ".part":
            files.append((found.st_atime, found.st_size, path))
        elif now - found.st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if total <= limit_bytes() or now - used < RECENT_S:
            return
        path.unlink(missing_ok=True)
        total -= size


def limit_bytes() -> float:
    """Return the size that the cache may have.

    Raises:
        ConfigError: the environment variable is no number.
    """
    named = os.environ.get(LIMIT)
    try:
        return (DEFAULT_LIMIT_GB if named is None else float(named)) * 1e9
    except ValueError:
        raise ConfigError(f"{LIMIT}: expected a number of gigabytes such as 20, found {named!r}") from None


def code_of(*modules: str) -> str:
    """Digest the sources of modules of ours: what they made before an edit is not what they would make now.

    Args:
        modules: such as `training/examples`; of a package, such as `inputs`, all its modules.
    """
    assert fuseline.__file__ is not None
    places = [Path(fuseline.__file__).parent / name for name in modules]
    files = [
        file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [Path(f"{place}.py")])
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def versions_of(*packages: str) -> str:
    """Name the installed versions of packages."""
    return " ".join(f"{package} {version(package)}" for package in packages)
