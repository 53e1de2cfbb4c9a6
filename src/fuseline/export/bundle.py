"""Lay out a bundle: graph, what reads its inputs, description, model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fuseline
from fuseline.export.graph import OUTPUTS, write_graph
from fuseline.export.requirements import tell_requirements
from fuseline.export.sbom import write_sbom
from fuseline.export.usage import tell_usage
from fuseline.inputs.base import Reader
from fuseline.models.ensemble import Ensemble
from fuseline.records import Bundle, BundleFile, Variant, sha256_of
from fuseline.runtime.bundle import CARD, MODEL
from fuseline.tasks.base import Task, Unit
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner


def describe_outputs(unit: Unit) -> dict[str, str]:
    """Say type, axes and meaning of each output; where words or labels are scored, each has an axis for them."""
    units = {"row": "batch", "word": "batch, words", "label": "batch, labels"}[unit]
    notes = {
        "probabilities": f"float32 [{units}, classes], calibrated",
        "logits": f"float32 [{units}, classes]",
        "members": f"float32 [{units}, members, classes], each member's own probabilities",
    }
    return {name: notes[name] for name in OUTPUTS}


@dataclass(frozen=True)
class Contents:
    """What a bundle is made from, besides the ensemble."""

    name: str
    task: Task
    members: list[str]
    max_tokens: int
    opset: int
    data: str
    """sha256 of the data set's manifest."""
    card: str = ""
    """The model card, up to how it is used; there is none before the graph was measured."""
    bases: dict[str, str] = field(default_factory=dict)
    """By modality, what its encoder began as."""
    variant: Variant = "fp32"

    def about(self) -> dict[str, str]:
        """Return what the graph says of itself."""
        return {
            "name": self.name,
            "task": self.task.kind,
            "labels": json.dumps(self.task.labels, ensure_ascii=False),
            "variant": self.variant,
            "data": self.data,
            "fuseline": fuseline.__version__,
        }


def write_bundle(folder: Path, contents: Contents, ensemble: Ensemble, readers: Mapping[str, Reader]) -> Bundle:
    """Write all files of a bundle; arguments as of `draft`."""
    draft(folder, contents, ensemble, readers)
    return finish(folder, contents, ensemble)


def draft(folder: Path, contents: Contents, ensemble: Ensemble, readers: Mapping[str, Reader]) -> None:
    """Write what answers rows: the graph, unless it is there, files of readers, and their description.

    Args:
        readers: by modality, those that the members were trained with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MODEL).exists():
        write_graph(ensemble, contents.opset, folder / MODEL, contents.about())
    for reader in readers.values():
        reader.save(folder)
    describe(folder, contents, ensemble)


def finish(folder: Path, contents: Contents, ensemble: Ensemble) -> Bundle:
    """Write what people read of a draft, its model card and what it needs, and the description that lists all."""
    modalities = ensemble.modalities
    usage = tell_usage(modalities, contents.task.unit, ensemble.several, ensemble.layout)
    (folder / "README.md").write_text(contents.card + usage, encoding="utf-8")
    (folder / "requirements.txt").write_text(tell_requirements(modalities), encoding="utf-8")
    (folder / CARD).unlink()
    write_sbom(folder, contents.name, contents.task.kind, contents.data, contents.bases, modalities)
    return describe(folder, contents, ensemble)


def describe(folder: Path, contents: Contents, ensemble: Ensemble) -> Bundle:
    """Write `bundle.json`, with the digests of all files that are there."""
    bundle = Bundle(
        format=find_format(ensemble, contents.task.unit),
        name=contents.name,
        task=contents.task.kind,
        labels=contents.task.labels,
        modalities=ensemble.modalities,
        members=contents.members,
        max_tokens=contents.max_tokens,
        inputs={name: each.describe() for name, each in ensemble.inputs.items()},
        outputs=describe_outputs(contents.task.unit),
        **decoding(contents.task),
        variant=contents.variant,
        versions={"fuseline": fuseline.__version__, "opset": str(contents.opset)}
        | {name: version(name) for name in ("torch", "transformers", "onnx", "tokenizers")},
        data=contents.data,
        code=code_digest(),
        files={
            path.name: BundleFile(sha256=sha256_of(path), bytes=path.stat().st_size)
            for path in sorted(folder.iterdir())
        },
    )
    bundle.write(folder / CARD)
    return bundle


def find_format(ensemble: Ensemble, unit: Unit) -> int:
    """Return the lowest format that says all of a bundle."""
    if ensemble.layout:
        return 5
    return 4 if ensemble.several else {"row": 1, "word": 2, "label": 3}[unit]


def decoding(task: Task) -> dict[str, Any]:
    """Return what, besides the classes of units, makes an answer of their probabilities."""
    if isinstance(task, MultiLabel):
        return {"thresholds": task.thresholds}
    if not isinstance(task, Ner):
        return {}
    return {"scheme": task.scheme, "tags": task.tags, "transitions": task.transitions}


def code_digest() -> str:
    """Digest the package's sources: the revision of the code where no git is to be asked."""
    root = Path(fuseline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()
