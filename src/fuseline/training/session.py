"""The steps that training an expert and training a fusion member have in common."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fuseline.config import Encoders, Member, Train
from fuseline.errors import DataError, ModelError
from fuseline.models.member import FusionModel
from fuseline.progress import say
from fuseline.records import History
from fuseline.training.augment import build_change
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import predict_log_probs
from fuseline.training.pretrained import load_tokenizer
from fuseline.training.trainer import fit
from fuseline.training.tuning import merge, tune


def train_member(
    name: str, model: FusionModel, recipe: Member, encoders: Encoders, common: Train, prepared: Path, folder: Path
) -> None:
    """Train a member on `prepared` and write checkpoint, tokenizer.json, history.json and validation.npy to `folder`.

    validation.npy holds the log-probabilities [N, C] of all validation rows, in order: what the ensemble is fitted on.

    Raises:
        DataError: a split has no row with any of the member's modalities.
    """
    side, classes = encoders.image.size, len(model.config.labels)
    tokenizer = load_tokenizer(encoders.text) if "text" in recipe.modalities else None
    train, val = (_read(prepared / split, side, recipe) for split in ("train", "val"))
    if recipe.augment is not None:
        train.change = build_change(recipe.augment)
    changed, plain = Collator(tokenizer, side, classes, recipe.label_smoothing), Collator(tokenizer, side, classes)
    adapters = tune(model, recipe)
    epochs = fit(name, model, recipe, common, train, val, changed, plain)
    merge(adapters)
    log_probs_NC = predict_log_probs(model, Examples(prepared / "val", side), plain)
    if not all(math.isfinite(epoch.val_loss) for epoch in epochs):
        raise ModelError(f"member {name}: training diverged (validation loss is not a number); lower its learning_rate")
    model.cpu().save_pretrained(folder)
    np.save(folder / "validation.npy", log_probs_NC)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    History(epochs=epochs).write(folder / "history.json")
    say(f"train {name}: done, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


def _read(split: Path, side: int, recipe: Member) -> Examples:
    examples = Examples(split, side, recipe.modalities)
    if not len(examples):
        raise DataError(f"{split}: no row with {' or '.join(recipe.modalities)} to train or validate on")
    return examples
