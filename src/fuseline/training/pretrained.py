"""A member as it is before training."""

from __future__ import annotations

from typing import Any

import torch

from fuseline.config import CrossAttention, Encoders, Expert, Focal, LowRank, Member, Mixture
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.tasks.base import Task
from fuseline.training.modalities import build_modalities


def build_member(recipe: Member, encoders: Encoders, task: Task, seed: int) -> FusionModel:
    """Build a member as it is before training: pretrained encoders, the rest drawn from `seed`.

    Raises:
        ModelError: an encoder is unknown or its weights cannot be loaded.
    """
    torch.manual_seed(seed)
    modalities = build_modalities(encoders, recipe.modalities, layout=recipe.layout)
    config = FusionConfig(
        modalities=list(recipe.modalities),
        labels=task.labels if task.unit == "label" else task.classes,
        unit=task.unit,
        crf=recipe.loss == "crf",
        encoders={name: modality.architecture() for name, modality in modalities.items()},
        dropout=recipe.dropout,
        **_fusion_config(recipe),
    )
    member = FusionModel(config)
    for name, modality in modalities.items():
        modality.load(member.encoders[name])  # type: ignore[arg-type]
    member.gamma = recipe.loss.gamma if isinstance(recipe.loss, Focal) else 0.0
    return member


KINDS = {LowRank: "low-rank", CrossAttention: "cross-attention", Mixture: "mixture-of-experts"}
"""What the model calls the fusions that have numbers of their own."""


def _fusion_config(recipe: Member) -> dict[str, Any]:
    if isinstance(recipe, Expert):
        return {}
    given = recipe.fusion
    kind, options = (given, {}) if isinstance(given, str) else (KINDS[type(given)], given.model_dump())
    return {
        "fusion": kind, "fusion_options": options, "hidden": recipe.hidden, "modality_dropout": recipe.modality_dropout,
    }  # fmt: skip
