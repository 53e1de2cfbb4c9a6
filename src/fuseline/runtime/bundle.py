"""A bundle on disk: files, digests, signature, description."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fuseline.errors import BundleError, ConfigError, FuselineError
from fuseline.inputs import READERS
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import COUNTS, SETTINGS
from fuseline.inputs.text import LAYOUT, WORDS
from fuseline.records import BUNDLE_FORMAT, Bundle, BundleFormat, Decoding, sha256_of
from fuseline.runtime.signature import FROM_ENVIRONMENT, SIGNATURE, Key, check_signature
from fuseline.runtime.wire import external_files
from fuseline.tasks import build_task
from fuseline.tasks.base import Task

MODEL = "model.onnx"
CARD = "bundle.json"
EVIDENCE = "evidence"
"""Folder of what is added when a bundle is published; nothing loads it."""
RESTORE = "restore the bundle with `fuseline promote VERSION`"


@dataclass(frozen=True)
class Held:
    """A file's bytes, or None where the bundle has no such file."""

    data: bytes | None

    def is_file(self) -> bool:
        return self.data is not None

    def read_bytes(self) -> bytes:
        assert self.data is not None
        return self.data


@dataclass(frozen=True)
class Loaded:
    """A verified bundle with the files that answer rows: the very bytes whose digests were checked.

    What happens to the folder afterwards changes nothing.
    """

    bundle: Bundle
    files: dict[str, bytes]

    def __truediv__(self, name: str) -> Held:
        return Held(self.files.get(name))


def read_bundle(folder: Path, public_key: Key = FROM_ENVIRONMENT) -> Bundle:
    """Read a bundle's description after checking the digest of every file: onnxruntime does not.

    Args:
        public_key: whose signature it must bear; `signature.check_signature` says more.

    Raises:
        BundleError: a file is missing, altered, not listed or lies outside the folder, the signature is not sound, or
            the bundle is of a newer format.
    """
    bundle = _open_card(folder, public_key)
    for name in bundle.files:
        _verify(folder, name, bundle, sha256_of(_find(folder, name)))
    return bundle


def load_bundle(folder: Path, model: str = MODEL, public_key: Key = FROM_ENVIRONMENT) -> Loaded:
    """Do the same, and keep what is needed to answer rows; each file is read once.

    Args:
        model: the graph, of several that a bundle may hold.
    """
    bundle = _open_card(folder, public_key)
    files = {model: _read(folder, model, bundle)}
    weights = external_files(files[model])
    if unlisted := weights - set(bundle.files):
        raise BundleError(
            f"{folder / model}: its weights are to come from {', '.join(map(repr, sorted(unlisted)))}, which {CARD} "
            "does not list; export the bundle again"
        )
    settings = {SETTINGS, WORDS, LAYOUT} | {name for each in bundle.modalities for name in READERS[each].files}
    wanted = weights | settings & set(bundle.files)
    files |= {name: _read(folder, name, bundle) for name in wanted}
    for name in set(bundle.files) - set(files):
        _verify(folder, name, bundle, sha256_of(_find(folder, name)))
    return Loaded(bundle, files)


def _open_card(folder: Path, public_key: Key) -> Bundle:
    """Read the description, and check all that can be without reading the files."""
    if not (folder / CARD).is_file():
        raise BundleError(f"{folder}: no {CARD} here; expected a bundle, such as champion/ after `make retrain`")
    data = (folder / CARD).read_bytes()
    check_signature(folder, data, public_key)
    bundle = parse_card(data, folder / CARD)
    if unknown := set(bundle.modalities) - set(READERS):
        raise BundleError(f"{folder / CARD}: {', '.join(sorted(unknown))} is no modality known here: update Fuseline")
    if missing := _expected(bundle) - set(bundle.files):
        raise BundleError(f"{folder / CARD}: {', '.join(sorted(missing))} is not listed, so it cannot be verified")
    for name in bundle.files:
        _find(folder, name)
    _refuse_others(folder, bundle.files)
    return bundle


def _expected(bundle: Bundle) -> set[str]:
    words = [WORDS] if task_of(bundle).words else []
    several = [SETTINGS] if COUNTS.name in bundle.inputs else []
    layout = [LAYOUT] if BOXES in bundle.inputs else []
    always = [name for modality in bundle.modalities for name in READERS[modality].files]
    return {MODEL, *words, *several, *layout, *always}


def _find(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder / CARD}: file {name!r} lies outside the bundle")
    if not path.is_file():
        raise BundleError(f"{path}: missing; {RESTORE}")
    return path


def _refuse_others(folder: Path, listed: Collection[str]) -> None:
    """Refuse files that nobody vouches for, hidden ones and the evidence apart: one could be taken for a setting."""
    known = {CARD, SIGNATURE, *listed}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if name in known or hidden or name.split("/")[0] == EVIDENCE or (path.is_dir() and not path.is_symlink()):
            continue
        raise BundleError(f"{path}: {CARD} does not list it; remove it, or {RESTORE}")


def _read(folder: Path, name: str, bundle: Bundle) -> bytes:
    if name not in bundle.files:
        raise BundleError(f"{folder / CARD}: {name} is not listed, so it cannot be verified")
    data = _find(folder, name).read_bytes()
    _verify(folder, name, bundle, hashlib.sha256(data).hexdigest())
    return data


def _verify(folder: Path, name: str, bundle: Bundle, digest: str) -> None:
    if digest != bundle.files[name].sha256:
        raise BundleError(f"{folder / name}: altered (sha256 differs from {CARD}); {RESTORE}")


def task_of(bundle: Bundle) -> Task:
    """Return the problem that a bundle solves."""
    try:
        decoding = Decoding(transitions=bundle.transitions, thresholds=bundle.thresholds)
        return build_task(bundle.task, bundle.labels, bundle.scheme, decoding)
    except ConfigError:
        raise BundleError(f"{CARD}: a bundle for {bundle.task} is not known here: update Fuseline") from None


def read_card(path: Path) -> Bundle:
    """Read a bundle's description alone: of its files nothing is known.

    Raises:
        BundleError: it is no such description, or of a newer format.
    """
    try:
        return parse_card(path.read_bytes(), path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from error


def parse_card(data: bytes, path: Path) -> Bundle:
    """Do the same with the bytes that were read at `path`."""
    try:
        found = BundleFormat.parse(data, path).format
        if found <= BUNDLE_FORMAT:
            return Bundle.parse(data, path)
    except FuselineError as error:
        raise BundleError(f"{error}; {RESTORE}") from error
    raise BundleError(
        f"{path}: the bundle is of format {found}, but this Fuseline reads formats up to {BUNDLE_FORMAT}: "
        "update Fuseline"
    )
