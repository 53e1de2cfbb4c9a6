"""A virtual environment of exactly what a bundle's requirements.txt pins, from the distributions installed here.

pip would fetch the same files: linking them needs no network and cannot get another build of a version.
"""

from __future__ import annotations

import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from fuseline.errors import ExportError


def read_pins(requirements: Path) -> dict[str, str]:
    """Return the versions that a requirements.txt pins, by name.

    Raises:
        ExportError: a line pins nothing.
    """
    pins = {}
    for number, line in enumerate(requirements.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, pinned, version = line.strip().partition("==")
        if not pinned:
            raise ExportError(f"{requirements}, line {number}: expected NAME==VERSION, found {line!r}")
        pins[name] = version
    return pins


def build_environment(pins: dict[str, str], target: Path) -> Path:
    """Make a virtual environment that holds these distributions alone; return its Python.

    Raises:
        ExportError: what is installed here is of another version, or does not tell its files.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True, clear=True).create(target)
    (packages,) = target.glob("lib/python*/site-packages")
    for name, version in pins.items():
        for file, source in _files_of(_find(name, version)):
            place = packages / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
    return target / "bin" / "python"


def _find(name: str, version: str) -> Distribution:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise ExportError(
            f"{name}=={version} is pinned by the bundle, but not installed here: `make install`"
        ) from None
    if found.version != version:
        raise ExportError(
            f"{name}=={version} is pinned by the bundle, but {found.version} is installed here: run export again"
        )
    return found


def _files_of(found: Distribution) -> Iterator[tuple[str, Path]]:
    """Yield what belongs into site-packages; commands and compiled bytecode do not."""
    if found.files is None:
        raise ExportError(f"{found.name} does not tell which files it has (no RECORD): install it from a wheel")
    for file in found.files:
        if ".." not in file.parts and file.suffix != ".pyc":
            source = Path(str(found.locate_file(file)))
            if source.is_file():
                yield str(file), source.resolve()
