"""The steps that training an expert and training a fusion member have in common."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from fuseline.config import Augment, Encoders, Member, Train
from fuseline.errors import DataError, ModelError
from fuseline.models.member import FusionModel
from fuseline.progress import say
from fuseline.records import Epoch, History, Ingredient, Origin, files_of
from fuseline.tasks.base import Task
from fuseline.training import resume
from fuseline.training.combine import TRANSITIONS
from fuseline.training.examples import Change, Collator, Examples
from fuseline.training.features import encode
from fuseline.training.lessons import Lessons
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.base import Modality
from fuseline.training.predict import predict_log_probs
from fuseline.training.soup import Validated, Weights, copy_weights, greedy_soup, refresh_norms
from fuseline.training.steps import Replay, Steps
from fuseline.training.targets import TrainingCollator, weigh_classes
from fuseline.training.trainer import find_device, fit, is_first, read_transitions, score_by, validate
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
    modalities = build_modalities(encoders, recipe.modalities, task.words, recipe.layout)
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
    told = {
        "recipe": recipe.model_dump(mode="json"),
        "common": common.model_dump(exclude={"checkpoint_steps"}),
        "readers": plain.describe(),
        "lessons": [] if lessons is None else lessons.describe(),
        "replayed": [] if replay is None else replay.rows.tolist(),
    }
    key = resume.key_of(model, [*files_of(prepared / "train"), *files_of(prepared / "val")], told)
    with resume.keep(key, first=is_first()) as checkpoints:
        work = Work(name, recipe, task, plain, train, val, checkpoints, replay, lessons, callbacks)
        if recipe.soup is None:
            history = History(metric=task.headline, epochs=work.train(model, common), origin=origin)
        else:
            model, history = work.make_soup(model, common, recipe.soup.seeds, origin)
        if is_first():
            _write(name, model, history, Examples(prepared / "val", modalities), plain, folder)
            if (transitions := read_transitions(model, task)) is not None:
                transitions.write(folder / TRANSITIONS)


@dataclass(frozen=True)
class Work:
    """All that a member is trained with, but its weights and the seed."""

    name: str
    recipe: Member
    task: Task
    plain: Collator
    """Of rows whose items are no vectors yet."""
    rows: Examples
    val: Examples
    checkpoints: Path
    replay: Replay | None
    lessons: Lessons | None
    callbacks: Sequence[TrainerCallback]

    def train(self, model: FusionModel, common: Train, place: str = "") -> list[Epoch]:
        """Train `model` in place, adapters merged; return the learning curve.

        Args:
            place: of the checkpoints, in their folder.
        """
        adapters, named = tune(model, self.recipe), f"train {self.name} {place}".rstrip()
        fed, collate = self.collators(model, common)
        score, checkpoints = score_by(self.task, model), self.checkpoints / place
        epochs = fit(
            named, model, self.recipe, score, common, self.rows, self.val, collate, fed, checkpoints, self.replay,
            self.lessons, self.callbacks,
        )  # fmt: skip
        merge(adapters)
        return epochs

    def collators(self, model: FusionModel, common: Train) -> tuple[Collator, TrainingCollator]:
        """Return what makes the batches of validation and those of training, of items or what stands for them."""
        nn.Module.to(model, find_device(common))  # PreTrainedModel's own says nothing of its types
        sizes = encode_still(model, self.recipe, self.plain, [self.rows, self.val])
        fed = Collator(self.plain.readers, self.plain.classes, sizes, self.task.words)
        return fed, TrainingCollator(fed, self.recipe, weigh_classes(self.recipe, self.task, self.rows.labels))

    def make_soup(
        self, start: FusionModel, common: Train, seeds: int, origin: Origin | None
    ) -> tuple[FusionModel, History]:
        """Train a member several times from the same start, and average what validation does not lose by."""
        found, curves = [], []
        for seed in range(common.seed, common.seed + seeds):
            model = copy.deepcopy(start)
            torch.manual_seed(seed)  # of adapters; what was trained before, or found done, leaves another state
            self.rows.seed, self.rows.epoch = seed, 0
            curves.append(self.train(model, common.model_copy(update={"seed": seed}), f"seed-{seed}"))
            refuse_diverged(self.name, curves[-1])
            found.append(copy_weights(model))
        self.rows.seed, self.rows.epoch = common.seed, 0
        fed, collate = self.collators(model, common)
        steps = Steps(np.zeros(len(self.rows)), self.recipe.batch_size, common.seed)
        score = score_by(self.task, model)

        def validated(weights: Weights) -> Validated:
            model.load_state_dict(weights)
            reached, loss = validate(model, self.recipe, score, common, self.rows, self.val, fed, self.checkpoints)
            return Validated(reached, -loss)

        def refreshed(weights: Weights) -> Weights:
            model.load_state_dict(weights)
            torch.manual_seed(common.seed)
            refresh_norms(model, self._as_trained(steps, collate, model.device))
            return copy_weights(model)

        soup, tried = greedy_soup(found, validated, refreshed)
        model.load_state_dict(soup)
        kept = [each for each in tried if each.kept]
        if is_first():
            say(
                f"train {self.name}: a soup of {len(kept)} of {seeds}, val {self.task.headline} "
                f"{kept[-1].soup.score:.3f}, the best alone {kept[0].alone.score:.3f}"
            )
        listed = [
            Ingredient(
                seed=common.seed + each.number, epochs=curves[each.number], score=each.alone.score,
                loss=-each.alone.gain, soup_score=each.soup.score, soup_loss=-each.soup.gain, kept=each.kept,
            )
            for each in tried
        ]  # fmt: skip
        return model, History(metric=self.task.headline, epochs=listed[0].epochs, origin=origin, soup=listed)

    def _as_trained(self, steps: Steps, collate: TrainingCollator, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Yield the training rows as the first epoch sees them, without labels."""
        for batch in DataLoader(self.rows, batch_sampler=steps, collate_fn=collate):
            inputs = {key: tensor.to(device) for key, tensor in batch.items() if key not in ("labels", "soft")}
            yield inputs


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
    refuse_diverged(name, history.epochs)
    model.cpu().save_pretrained(folder)
    np.save(folder / "validation.npy", log_probs_UC)
    for reader in collate.readers.values():
        reader.save(folder)
    history.write(folder / "history.json")
    if history.origin is not None:
        say(f"train {name}: {tell(history.origin)}")
    say(f"train {name}: done, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


def refuse_diverged(name: str, epochs: Sequence[Epoch]) -> None:
    """Refuse a member whose validation loss was no number at some time."""
    if not all(math.isfinite(epoch.val_loss) for epoch in epochs):
        raise ModelError(f"member {name}: training diverged (validation loss is not a number); lower its learning_rate")


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
    if model.config.words or model.config.layout:
        changing.add("text")  # a text's vector says nothing of its words, and nothing of where they stand
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
