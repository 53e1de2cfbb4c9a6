"""Read back what training wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuseline.config import Modality
from fuseline.errors import ModelError
from fuseline.inputs import READERS
from fuseline.inputs.base import Reader
from fuseline.models.combine import Combiner, patterns_of
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.records import Combination


def load_members(folder: Path, names: Sequence[str]) -> dict[str, FusionModel]:
    """Load the checkpoints of members, ready for inference, in the order of `names`.

    Args:
        folder: holds the checkpoints as experts/NAME and fusions/NAME.

    Raises:
        ModelError: a checkpoint is missing or unreadable.
    """
    return {name: load_member(find_checkpoint(folder, name)) for name in names}


def find_checkpoint(folder: Path, name: str) -> Path:
    """Return the folder of a member's checkpoint.

    Raises:
        ModelError: there is none.
    """
    for kind in ("experts", "fusions"):
        if (folder / kind / name / "model.safetensors").is_file():
            return folder / kind / name
    raise ModelError(f"{folder}: no checkpoint of member {name!r}; train it with `dvc repro`")


def load_member(folder: Path) -> FusionModel:
    """Load one checkpoint, safetensors only."""
    try:
        member: FusionModel = FusionModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no readable checkpoint: {error}; train it again") from error
    member.eval()
    return member


def take_encoders(model: FusionModel, start: Mapping[Modality, str], experts: Path) -> None:
    """Put trained encoders into a member.

    Args:
        start: by modality, the expert whose encoder it is to be.
        experts: holds their checkpoints.
    """
    for modality, name in start.items():
        expert = load_member(experts / name)
        model.encoders[modality].take(expert.encoders[modality].state_dict())  # type: ignore[operator]


def read_combination(folder: Path) -> Combination:
    """Read how members make an ensemble."""
    return Combination.read(folder / "combination.json")


def load_ensemble(folder: Path, combination: Combination) -> Ensemble:
    """Load the members and combine them as fitted."""
    members = load_members(folder, list(combination.weights))
    return Ensemble(members, build_combiner(combination)).eval()


def build_combiner(combination: Combination) -> Combiner:
    """Build what combines the members' log-probabilities, in double precision."""

    def tensor(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    stack, members = combination.stack, list(combination.weights)
    named = [combination.patterns.get(name, combination.weights) for name in patterns_of(combination.modalities)]
    return Combiner(
        tensor(list(combination.weights.values())), tensor(combination.temperature), combination.pool,
        tensor([[weights[name] for name in members] for weights in named]) if combination.patterns else None,
        None if stack is None else (tensor(stack.weights), tensor(stack.bias)),
    )  # fmt: skip


def load_readers(folder: Path, ensemble: Ensemble) -> dict[str, Reader]:
    """Load the readers that the members were trained with: by modality, for all members share them.

    Only of texts they may differ: the reader of members with layout gives the others' inputs too.
    """
    readers: dict[str, Reader] = {}
    members = zip(ensemble.names, ensemble.members, strict=True)
    for name, member in sorted(members, key=lambda each: bool(each[1].config.layout)):
        for modality in member.config.modalities:  # type: ignore[union-attr]
            readers[modality] = READERS[modality].open(find_checkpoint(folder, name))
    return {modality: readers[modality] for modality in ensemble.modalities}
