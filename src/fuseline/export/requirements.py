"""What a bundle needs to answer rows, in the versions that it was exported and tested with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fuseline.errors import ExportError

RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
"""Two builds of one package; the first also runs where there is no GPU."""
DIRECT = {"text": ("tokenizers",), "image": ("pillow",), "audio": ("soundfile", "scipy")}
"""By modality, what the snippet of a bundle's README imports besides onnxruntime and numpy."""
NOTE = """\
# What this bundle was exported and tested with; `pip install -r requirements.txt` brings it back.
# Without an NVIDIA GPU, onnxruntime of the same version does in place of onnxruntime-gpu.
"""


def name_of(found: Distribution) -> str:
    """Return an installed distribution's name, spelt as the package index does (PEP 503)."""
    return canonicalize_name(found.metadata["Name"])


def find_direct(modalities: Sequence[str]) -> list[Distribution]:
    """Return what a bundle on these modalities imports."""
    runtime = next((name for name in RUNTIMES if _is_installed(name)), RUNTIMES[-1])
    return [_find(name) for name in (runtime, "numpy", *(each for name in modalities for each in DIRECT[name]))]


def find_all(modalities: Sequence[str]) -> dict[str, tuple[Distribution, list[str]]]:
    """Return the same with all that they need in turn, by name in order: each with the names of what it needs."""
    found: dict[str, tuple[Distribution, list[str]]] = {}
    open_ = [(each, frozenset[str]()) for each in find_direct(modalities)]
    seen = set()
    while open_:
        each, extras = open_.pop()
        name = name_of(each)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        needs = [(_find(need.name), frozenset(need.extras)) for need in _needs(each, extras)]
        before = found[name][1] if name in found else []
        found[name] = (each, sorted({*before, *(name_of(need) for need, _ in needs)}))
        open_ += needs
    return dict(sorted(found.items()))


def _needs(found: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield need


def tell_requirements(modalities: Sequence[str]) -> str:
    """Write requirements.txt: first what is imported, then what that needs, each pinned."""
    direct = find_direct(modalities)
    names = {name_of(each) for each in direct}
    others = [each for name, (each, _) in find_all(modalities).items() if name not in names]
    pinned, needed = ("".join(f"{name_of(each)}=={each.version}\n" for each in part) for part in (direct, others))
    return f"{NOTE}{pinned}# Needed by these:\n{needed}"


def _is_installed(name: str) -> bool:
    try:
        return distribution(name) is not None
    except PackageNotFoundError:
        return False


def _find(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise ExportError(f"{name} is not installed, but a bundle needs it: `make install`") from None
