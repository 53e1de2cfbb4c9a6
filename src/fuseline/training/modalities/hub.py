"""Where a Hugging Face model lies: in a package, in a folder, or on the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuseline.errors import ModelError
from fuseline.records import sha256_of


def find_model(modality: str, name: str, revision: str | None) -> dict[str, Any]:
    """Return what Hugging Face's from_pretrained takes to load a model: name or folder, and revision.

    Raises:
        ModelError: no such package, it carries no safetensors model, or a local folder is not as pinned.
    """
    if name.startswith("package:"):
        return {"pretrained_model_name_or_path": _find_in_package(modality, name.removeprefix("package:"))}
    if Path(name).is_dir():
        found = digest_model(Path(name))
        if found != revision:
            raise ModelError(
                f"encoders.{modality}.revision: the files in {name} have the digest {found}, params.yaml says "
                f"{revision}; put the former there if these are the weights you mean"
            )
        return {"pretrained_model_name_or_path": name}
    return {"pretrained_model_name_or_path": name, "revision": revision}


def digest_model(folder: Path) -> str:
    """Digest names and contents of a model folder's files; hidden files and subfolders do not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _find_in_package(modality: str, name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ModelError(f"encoders.{modality}.name: no installed Python package {name!r}")
    found = sorted(Path(spec.origin).parent.rglob("model.safetensors"))
    if not found:
        raise ModelError(f"encoders.{modality}.name: package {name!r} holds no model.safetensors")
    return str(found[0].parent)


def load_weights(backbone: nn.Module, modality: str, name: str, revision: str | None) -> None:
    """Put a Hugging Face model's weights, safetensors only, into a fresh one of the same shape.

    Raises:
        ModelError: they cannot be loaded, or some are missing.
    """
    try:
        pretrained = type(backbone).from_pretrained(  # type: ignore[attr-defined]  # of CLIP, the picture side alone
            **find_model(modality, name, revision), use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.{modality}.name: weights of {name!r} cannot be loaded: {error}") from error
    missing = backbone.load_state_dict(pretrained.state_dict(), strict=False).missing_keys
    if missing:
        raise ModelError(f"encoders.{modality}.name: {name!r} lacks weights for {', '.join(missing[:3])}")
