"""Joint pre-training: encoders learn from pairs, and members start from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fuseline.config import Encoders, Pretrain, Train
from fuseline.errors import DataError, ModelError
from fuseline.models.joint import JointConfig, JointModel
from fuseline.models.member import FusionModel
from fuseline.records import Epoch, files_of
from fuseline.training import resume
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.text import find_mask
from fuseline.training.session import build_changes
from fuseline.training.trainer import Score, find_device, fit, is_first

SUFFIX = ".safetensors"
SCORE = Score("matched", lambda hits, _: float(np.mean(hits)))
"""Share of the texts whose own item is the most similar one of its batch of 64."""


def pretrain(settings: Pretrain, encoders: Encoders, common: Train, prepared: Path, folder: Path) -> list[Epoch]:
    """Train encoders on the pairs of `prepared`; write each as MODALITY.safetensors to `folder`.

    Raises:
        DataError: a split has fewer than two rows with both modalities.
        ModelError: the text encoder's tokenizer has no mask, or training diverged.
    """
    modalities = build_modalities(encoders, settings.modalities)
    train, val = (_read_pairs(prepared / split, modalities) for split in ("train", "val"))
    train.changes, train.seed = build_changes(modalities, settings.augment), common.seed
    collate = _Unlabelled({name: modality.reader for name, modality in modalities.items()}, classes=1)
    model = _build(settings, encoders, modalities, common.seed)
    nn.Module.to(model, find_device(common))
    told = {
        "recipe": settings.model_dump(mode="json"),
        "common": common.model_dump(exclude={"checkpoint_steps"}),
        "readers": collate.describe(),
    }
    key = resume.key_of(model, [*files_of(prepared / "train"), *files_of(prepared / "val")], told)
    with resume.keep(key, first=is_first()) as checkpoints:
        epochs = fit("pretrain", model, settings, SCORE, common, train, val, collate, collate, checkpoints)
        if not all(math.isfinite(epoch.val_loss) for epoch in epochs):
            raise ModelError("pretrain: training diverged (validation loss is not a number); lower its learning_rate")
        if is_first():
            for name, encoder in model.cpu().encoders.items():
                save_file(encoder.state_dict(), folder / f"{name}{SUFFIX}")
    return epochs


def start_encoders(model: FusionModel, folder: Path) -> None:
    """Put the encoders that pre-training left in `folder`, where it did, into a member."""
    for name, encoder in model.encoders.items():
        if (path := folder / f"{name}{SUFFIX}").is_file():
            encoder.take(load_file(path))  # type: ignore[operator]


class _Unlabelled(Collator):
    """Makes batches of examples whose labels are not looked at."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        return super().__call__([example | {"label": 0} for example in examples])


def _read_pairs(split: Path, modalities: dict[str, Modality]) -> Examples:
    examples = Examples(split, modalities)
    examples.choose(np.all(list(examples.present().values()), axis=0))
    if len(examples) < 2:
        raise DataError(f"{split}: expected 2 or more rows with {' and '.join(modalities)}; found {len(examples)}")
    return examples


def _build(settings: Pretrain, encoders: Encoders, modalities: dict[str, Modality], seed: int) -> JointModel:
    torch.manual_seed(seed)
    mask, special = find_mask(encoders.text) if encoders.text and settings.objectives.masked_words else (None, [])
    config = JointConfig(
        modalities=list(modalities),
        encoders={name: modality.architecture() for name, modality in modalities.items()},
        objectives=settings.objectives.model_dump(),
        hidden=settings.hidden,
        heads=settings.heads,
        mask=settings.mask,
        mask_token=mask,
        special_tokens=special,
    )
    model = JointModel(config)
    for name, modality in modalities.items():
        modality.load(model.encoders[name])  # type: ignore[arg-type]
    return model
