"""Training that goes on from the champion's member, where it has one that fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fuseline.config import DEALT_BY, Params, WarmStart
from fuseline.errors import ModelError
from fuseline.models.member import FusionModel
from fuseline.records import Start, sha256_of
from fuseline.training.checkpoints import load_member

HEAD = ("head.weight", "head.bias")
"""What has a row for each class."""
BEFORE = {"image": {"several": False}}
"""By modality, what keys meant of which an older champion's params say nothing."""


@dataclass(frozen=True)
class Beginning:
    """Where a member's weights come from, and which rows they know already."""

    version: str | None
    """The champion that it goes on from; None where it is trained anew."""
    why: str
    known: frozenset[str] = frozenset()
    """Files of the splits that the champion's data set held too."""
    replay: float = 1.0


def begin(model: FusionModel, wanted: WarmStart | None, params: Params, folder: Path, place: str) -> Beginning | None:
    """Put the weights of the champion's member into `model`, as it is before training, if there is one that fits.

    Args:
        wanted: None trains anew, and so does whatever does not fit.
        params: those of this training.
        folder: holds the champion's members; its record lies beside it.
        place: the member's in it, such as experts/text.

    Returns:
        None where `wanted` is.

    Raises:
        ModelError: a file of the member is not the one that the record lists.
    """
    if wanted is None:
        return None
    start = Start.read(folder.with_suffix(".json"))
    if start.version is None:
        return Beginning(None, "there was no champion to go on from")
    if not any(file.startswith(f"{place}/") for file in start.files):
        return Beginning(None, f"champion {start.version} has no member {Path(place).name}")
    check_files(place, start, folder)
    champion = load_member(folder / place)
    if why_not := find_other(start, params, model.config.modalities) or find_misfit(model, champion):
        return Beginning(None, f"the member of champion {start.version} {why_not}")
    new = take_over(model, champion)
    learnt = f"; new to it: {', '.join(new)}" if new else ""
    return Beginning(
        start.version, f"goes on from champion {start.version}{learnt}", frozenset(start.known), wanted.replay
    )


def check_files(place: str, start: Start, folder: Path) -> None:
    """Refuse files other than those that `start` lists: the weights would be others than its record says."""
    for file, digest in start.files.items():
        if file.startswith(f"{place}/") and not ((folder / file).is_file() and sha256_of(folder / file) == digest):
            raise ModelError(
                f"{folder / file}: not the file that start.json lists for champion {start.version}; fetch it: "
                "`dvc pull start.dvc`"
            )


def find_other(start: Start, params: Params, modalities: Sequence[str]) -> str | None:
    """Say by what settings a champion's member cannot be gone on from; None if none keeps from it.

    Dealt by others, rows that it was trained on may now be those that it is judged by. Weights of the same shape that
    were loaded from elsewhere, or tokens with other numbers, fit nothing here.
    """
    dealt_by = params.prepare.model_dump(mode="json", include=DEALT_BY)
    if {key: start.prepare.get(key) for key in dealt_by} != dealt_by:
        return "was trained on rows that were dealt to the splits by another `prepare`"
    for modality in modalities:
        theirs = BEFORE.get(modality, {}) | (start.encoders.get(modality) or {})
        if theirs != getattr(params.encoders, modality).model_dump(mode="json"):
            return f"has another {modality} encoder"
    return None


def find_misfit(model: FusionModel, champion: FusionModel) -> str | None:
    """Say why a champion's member cannot be gone on from; None if only its labels may differ."""
    for what in ("modalities", "unit", "fusion", "fusion_options", "hidden"):
        if getattr(model.config, what) != getattr(champion.config, what):
            return f"has other {what.replace('_', ' ')}"
    if model.config.crf != champion.config.crf:
        return "has another loss, of which only one is crf"
    for modality in model.config.modalities:
        ours, theirs = (json.dumps(each.config.encoders[modality], sort_keys=True) for each in (model, champion))
        if ours != theirs:
            return f"has another {modality} encoder"
    return None


def take_over(model: FusionModel, champion: FusionModel) -> list[str]:
    """Copy all weights; of the head the rows of labels that both have, by name. Those new to it keep what they have.

    Returns:
        The labels that are new.
    """
    theirs, ours = champion.config.labels, model.config.labels
    shared = [label for label in ours if label in theirs]
    weights = champion.state_dict()
    for name in HEAD:
        rows = model.state_dict()[name].clone()
        rows[_places(shared, ours)] = weights[name][_places(shared, theirs)]
        weights[name] = rows
    for name in [name for name in weights if name.startswith("crf.")]:
        scores, axes = model.state_dict()[name].clone(), weights[name].ndim
        scores[torch.meshgrid(*[_places(shared, ours)] * axes, indexing="ij")] = weights[name][
            torch.meshgrid(*[_places(shared, theirs)] * axes, indexing="ij")
        ]
        weights[name] = scores
    model.load_state_dict(weights)
    return [label for label in ours if label not in theirs]


def _places(labels: Sequence[str], among: Sequence[str]) -> torch.Tensor:
    return torch.tensor([among.index(label) for label in labels], dtype=torch.long)
