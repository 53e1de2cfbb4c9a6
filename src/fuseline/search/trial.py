"""One trial: the member's own training, as its stage does it, on what the prepare stage left."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fuseline import config
from fuseline.config import Params, Search
from fuseline.errors import ConfigError, ModelError
from fuseline.records import Epoch, History
from fuseline.search.space import put, suggest
from fuseline.search.study import EXPERTS, PREPARED, PRETRAINED, START, TRIALS, WHY
from fuseline.tasks import build_task
from fuseline.tasks.base import Task
from fuseline.training.beginning import build_begun
from fuseline.training.session import train_member
from fuseline.training.trainer import curve_of


class TimeIsUpError(Exception):
    """The budget is spent in the middle of a trial, which goes on when the search does."""


def try_values(
    study: optuna.Study, trial: optuna.Trial, path: Path, document: Mapping[str, Any], wanted: Search, deadline: float
) -> None:
    """Train the member with a trial's values, and tell the study what came of it."""
    values = {key: suggest(trial, key, entry) for key, entry in wanted.space.items()}
    try:
        params = config.check(path, put(document, values))
    except ConfigError as error:
        _fail(study, trial, error)
        return
    watch = _Watch(trial, wanted, _task(params).headline, deadline)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=TRIALS.parent) as folder:
        try:
            _train(params, wanted.member, Path(folder), watch)
            epochs = History.read(Path(folder) / "history.json").epochs
        except ModelError as error:
            if not watch.diverged:
                _fail(study, trial, error)
                return
    if watch.pruned or watch.diverged:
        study.tell(trial, state=TrialState.PRUNED)
        return
    patient = params.members.all()[wanted.member].patience is not None
    kept = min(epochs, key=lambda epoch: epoch.val_loss) if patient else epochs[-1]
    study.tell(trial, _measure(kept, wanted))


def _fail(study: optuna.Study, trial: optuna.Trial, error: Exception) -> None:
    """Record that a trial cannot be run with its values, and why: it is not tried again."""
    trial.set_user_attr(WHY, str(error))
    study.tell(trial, state=TrialState.FAIL)


def _measure(epoch: Epoch, wanted: Search) -> float:
    return epoch.val_loss if wanted.metric == "loss" else epoch.val_score


def _task(params: Params) -> Task:
    return build_task(params.task.kind, params.task.labels, params.task.scheme)


def _train(params: Params, name: str, folder: Path, watch: TrainerCallback) -> None:
    recipe = params.members.all()[name]
    task = _task(params)
    place, pretrained = f"{params.members.kind(name)}/{name}", None if params.pretrain is None else PRETRAINED
    model, beginning = build_begun(recipe, params, task, place, pretrained, START, EXPERTS)
    train_member(
        name, model, recipe, task, params.encoders, params.train, PREPARED, folder, beginning, callbacks=[watch]
    )


class _Watch(TrainerCallback):
    """Reports each epoch to Optuna, and ends a training that is worse than most were at that epoch."""

    def __init__(self, trial: optuna.Trial, wanted: Search, headline: str, deadline: float) -> None:
        self._trial, self._wanted, self._headline, self._deadline = trial, wanted, headline, deadline
        self.pruned = self.diverged = False
        self._told = 0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if time.monotonic() >= self._deadline:
            raise TimeIsUpError

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epochs = curve_of(state.log_history, self._headline)  # those before a kill are not told yet
        self.diverged = not all(math.isfinite(epoch.val_loss) for epoch in epochs)
        if not self.diverged:
            for epoch in epochs[self._told :]:
                self._trial.report(_measure(epoch, self._wanted), epoch.epoch)
            self._told = len(epochs)
            self.pruned = self._trial.should_prune()
        if self.pruned or self.diverged:
            control.should_training_stop = True
