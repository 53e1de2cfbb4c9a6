"""The steps that training an expert and training a fusion member have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback

from fuseline.config import Augment, Encoders, Member, Train
from fuseline.errors import DataError, ModelError
from fuseline.models.member import FusionModel
from fuseline.progress import say
from fuseline.records import History, Origin, files_of
from fuseline.tasks.base import Task
from fuseline.training import resume
from fuseline.training.combine import STEPS
from fuseline.training.examples import Change, Collator, Examples
from fuseline.training.features import encode
from fuseline.training.lessons import Lessons
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.base import Modality
from fuseline.training.predict import predict_log_probs
from fuseline.training.steps import Replay
from fuseline.training.targets import TrainingCollator, weigh_classes
from fuseline.training.trainer import find_device, fit, is_first, read_steps, score_by
from fuseline.training.tuning import merge, tune
from fuseline.training.warm import Beginning


def train_member(
    name: str, model: FusionModel, recipe: Member, task: Task, encoders: Encoders, common: Train, prepared: Path,
    folder: Path, beginning: Beginning | None = None, lessons: Lessons | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:  # fmt: skip
    """Train a member on `prepared`; write checkpoint, readers' files, history.json, validation.npy to `folder`.

    A member that learns how tags follow each other also has transitions.json there.

    validation.npy holds the log-probabilities [U, C] of the units of all validation rows, in order: what the ensemble
    is fitted on.

    Args:
        beginning: where the weights of a member that may start warm come from.
        lessons: what the ensemble says of the training rows, for a student.
        callbacks: see the training too.

    Raises:
        DataError: a split has no row with one of the member's modalities.
    """
    modalities = build_modalities(encoders, recipe.modalities, task.words)
    readers = {each: modality.reader for each, modality in modalities.items()}
    train, val = (_read(prepared / split, modalities, task) for split in ("train", "val"))
    train.changes, train.seed = build_changes(modalities, recipe.augment), common.seed
    origin, replay = None if beginning is None else count_rows(beginning, train), find_replay(beginning, train)
    if lessons is not None:
        several = task.unit != "row"
        counts_N = count_units(train) if several else [1] * len(train)
        soft = np.split(lessons.soft_UC, np.cumsum(counts_N)[:-1])
        train.soft = soft if several else [each[0] for each in soft]
    plain = Collator(readers, len(task.classes), words=task.words)
    adapters = tune(model, recipe)
    nn.Module.to(model, find_device(common))  # PreTrainedModel's own says nothing of its types
    fed = Collator(readers, len(task.classes), encode_still(model, recipe, plain, [train, val]), task.words)
    collate = TrainingCollator(fed, recipe, weigh_classes(recipe, task, train.labels))
    told = {
        "recipe": recipe.model_dump(mode="json"),
        "common": common.model_dump(exclude={"checkpoint_steps"}),
        "readers": plain.describe(),
        "lessons": [] if lessons is None else lessons.describe(),
        "replayed": [] if replay is None else replay.rows.tolist(),
    }
    key = resume.key_of(model, [*files_of(prepared / "train"), *files_of(prepared / "val")], told)
    with resume.keep(key, first=is_first()) as checkpoints:
        score, named = score_by(task, model), f"train {name}"
        epochs = fit(
            named, model, recipe, score, common, train, val, collate, fed, checkpoints, replay, lessons, callbacks
        )
        merge(adapters)
        if is_first():
            history = History(metric=task.headline, epochs=epochs, origin=origin)
            _write(name, model, history, Examples(prepared / "val", modalities), plain, folder)
            if (steps := read_steps(model, task)) is not None:
                steps.write(folder / STEPS)


def count_units(examples: Examples) -> list[int]:
    """Return how many units each row has, where these are no rows."""
    return [len(labels) for labels in examples.column("label")]


def find_replay(beginning: Beginning | None, train: Examples) -> Replay | None:
    """Return the training rows that a member knows already, of which each epoch takes a share; None for all of all."""
    if beginning is None or beginning.version is None:
        return None
    old_N = np.isin(train.files, list(beginning.known))
    return Replay(torch.from_numpy(np.flatnonzero(old_N)), beginning.replay)


def count_rows(beginning: Beginning, train: Examples) -> Origin:
    """Record where a member's weights come from, and the rows that it is trained on."""
    replay = find_replay(beginning, train)
    old, replayed = (0, 0) if replay is None else (len(replay.rows), replay.count)
    return Origin(
        version=beginning.version, why=beginning.why, old_rows=old, replayed=replayed, new_rows=len(train) - old
    )


def tell(origin: Origin) -> str:
    """Say where a member's weights come from, and which rows it was trained on."""
    if origin.version is None:
        return f"trained anew: {origin.why}"
    return f"{origin.why}; {origin.new_rows:,} new rows, and {origin.replayed:,} of {origin.old_rows:,} others an epoch"


def _write(name: str, model: FusionModel, history: History, val: Examples, collate: Collator, folder: Path) -> None:
    log_probs_UC = predict_log_probs(model, val, collate)
    if not all(math.isfinite(epoch.val_loss) for epoch in history.epochs):
        raise ModelError(f"member {name}: training diverged (validation loss is not a number); lower its learning_rate")
    model.cpu().save_pretrained(folder)
    np.save(folder / "validation.npy", log_probs_UC)
    for reader in collate.readers.values():
        reader.save(folder)
    history.write(folder / "history.json")
    if history.origin is not None:
        say(f"train {name}: {tell(history.origin)}")
    say(f"train {name}: done, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


def encode_still(model: FusionModel, recipe: Member, collate: Collator, splits: Sequence[Examples]) -> dict[str, int]:
    """Let vectors stand for the items of each modality whose encoder and items stay the same in all epochs.

    So a frozen encoder sees each row once, and not even once where the cache knows the row.

    Returns:
        The size of the vectors, by modality.
    """
    sizes: dict[str, int] = {}
    if model.fusion is not None and model.fusion.looks_at_states:
        return sizes
    changing = {name for split in splits for name in split.changes}
    if recipe.augment.image is not None and recipe.augment.image.mixup:
        changing.add("image")
    if model.config.words:
        changing.add("text")  # a text's vector says nothing of its words
    for name, tuning in recipe.tunings.items():
        if tuning == "frozen" and name not in changing:
            for split in splits:
                split.encoded[name] = encode(model, name, split, collate)
            sizes[name] = int(model.encoders[name].size)  # type: ignore[arg-type]
    return sizes


def build_changes(modalities: Mapping[str, Modality], augment: Augment) -> dict[str, Change]:
    """Return by modality the random changes of its items in training."""
    changes = {name: modality.build_change(augment) for name, modality in modalities.items()}
    return {name: change for name, change in changes.items() if change is not None}


def _read(split: Path, modalities: Mapping[str, Modality], task: Task) -> Examples:
    wanted = task.wanted(list(modalities))
    examples = Examples(split, modalities, only=wanted)
    if not len(examples):
        raise DataError(f"{split}: no row with {' or '.join(wanted)} to train or validate on")
    if absent := [name for name, rows_N in examples.present().items() if not rows_N.any()]:
        raise DataError(f"{split}: no row with {absent[0]}, which the member uses; take it out of its modalities")
    return examples
