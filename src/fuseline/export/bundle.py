"""Lay out a bundle: graph, tokenizer, description, model card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer

import fuseline
from fuseline.export.card import render_card
from fuseline.export.graph import INPUTS, OUTPUTS, write_graph
from fuseline.models.ensemble import Ensemble
from fuseline.progress import say
from fuseline.records import BUNDLE_FORMAT, Bundle, BundleFile, Evaluation, sha256_of

INPUT_TYPES = {
    "input_ids": "int64 [batch, tokens]",
    "attention_mask": "int64 [batch, tokens]",
    "has_text": "bool [batch]",
    "pixels": "uint8 [batch, height, width, 3], RGB",
    "has_image": "bool [batch]",
}
OUTPUT_TYPES = {
    "probabilities": "float32 [batch, classes], calibrated",
    "logits": "float32 [batch, classes]",
    "members": "float32 [batch, members, classes], each member's own probabilities",
}


@dataclass(frozen=True)
class Contents:
    """What a bundle is made from, besides the ensemble."""

    name: str
    task: str
    labels: list[str]
    modalities: list[str]
    members: list[str]
    max_tokens: int
    opset: int
    data: str
    """sha256 of the data set's manifest."""
    evaluation: Evaluation


def write_bundle(folder: Path, contents: Contents, ensemble: Ensemble, tokenizer: Tokenizer | None) -> Bundle:
    """Write all files of a bundle, `bundle.json` with their digests last."""
    folder.mkdir(parents=True)
    say("export: writing the graph (about half a minute)")
    write_graph(ensemble, contents.modalities, contents.opset, folder / "model.onnx")
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text(
        render_card(contents.name, contents.labels, contents.evaluation, contents.modalities), encoding="utf-8"
    )
    bundle = Bundle(
        format=BUNDLE_FORMAT,
        name=contents.name,
        task=contents.task,
        labels=contents.labels,
        modalities=contents.modalities,
        members=contents.members,
        max_tokens=contents.max_tokens,
        inputs={name: INPUT_TYPES[name] for modality in contents.modalities for name in INPUTS[modality]},
        outputs={name: OUTPUT_TYPES[name] for name in OUTPUTS},
        versions={"fuseline": fuseline.__version__, "opset": str(contents.opset)}
        | {name: version(name) for name in ("torch", "transformers", "onnx", "tokenizers")},
        data=contents.data,
        code=_code_digest(),
        files={
            path.name: BundleFile(sha256=sha256_of(path), bytes=path.stat().st_size)
            for path in sorted(folder.iterdir())
        },
    )
    bundle.write(folder / "bundle.json")
    return bundle


def _code_digest() -> str:
    """Digest the package's sources: the revision of the code where no git is to be asked."""
    root = Path(fuseline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()
