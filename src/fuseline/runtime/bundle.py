"""A bundle on disk: files, digests, description."""

from __future__ import annotations

from pathlib import Path

from fuseline.errors import BundleError, ConfigError, FuselineError
from fuseline.inputs import READERS
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import COUNTS, SETTINGS
from fuseline.inputs.text import LAYOUT, WORDS
from fuseline.records import BUNDLE_FORMAT, Bundle, BundleFormat, Decoding, sha256_of
from fuseline.tasks import build_task
from fuseline.tasks.base import Task

MODEL = "model.onnx"
CARD = "bundle.json"


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's description after checking the digest of every file: onnxruntime does not.

    Raises:
        BundleError: a file is missing, altered or lies outside the folder, or the bundle is of a newer format.
    """
    if not (folder / CARD).is_file():
        raise BundleError(f"{folder}: no {CARD} here; expected a bundle, such as champion/ after `make retrain`")
    bundle = read_card(folder / CARD)
    if unknown := set(bundle.modalities) - set(READERS):
        raise BundleError(f"{folder / CARD}: {', '.join(sorted(unknown))} is no modality known here: update Fuseline")
    words = [WORDS] if task_of(bundle).words else []
    several = [SETTINGS] if COUNTS.name in bundle.inputs else []
    layout = [LAYOUT] if BOXES in bundle.inputs else []
    always = [name for modality in bundle.modalities for name in READERS[modality].files]
    expected = {MODEL, *words, *several, *layout, *always}
    if missing := expected - set(bundle.files):
        raise BundleError(f"{folder / CARD}: {', '.join(sorted(missing))} is not listed, so it cannot be verified")
    for name, file in bundle.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / CARD}: file {name!r} lies outside the bundle")
        if not path.is_file():
            raise BundleError(f"{path}: missing; restore the bundle with `fuseline promote VERSION`")
        if sha256_of(path) != file.sha256:
            raise BundleError(
                f"{path}: altered (sha256 differs from {CARD}); restore the bundle with `fuseline promote VERSION`"
            )
    return bundle


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
        found = BundleFormat.read(path).format
        if found <= BUNDLE_FORMAT:
            return Bundle.read(path)
    except FuselineError as error:
        raise BundleError(f"{error}; restore the bundle with `fuseline promote VERSION`") from error
    raise BundleError(
        f"{path}: the bundle is of format {found}, but this Fuseline reads formats up to {BUNDLE_FORMAT}: "
        "update Fuseline"
    )
