"""Search for better numbers of one member's recipe: trials by Optuna, pruned, within a budget, resumable.

A trial is the member's own training, as its stage does it, on what the prepare stage left: its best values give the
stage the same weights. Trials are kept in an SQLite file, under a name that follows from search, params and data.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fuseline import config
from fuseline.config import Choices, Params, Range, Search
from fuseline.errors import ConfigError, ModelError
from fuseline.progress import say
from fuseline.records import Epoch, History, digest_of, files_of
from fuseline.tasks import build_task
from fuseline.tasks.base import Task
from fuseline.training.beginning import build_begun
from fuseline.training.pretraining import SUFFIX
from fuseline.training.session import train_member
from fuseline.training.trainer import curve_of, set_up

PREPARED, PRETRAINED = Path("build/prepare"), Path("build/pretrain")
EXPERTS, START = Path("build/train/experts"), Path("start")
TRIALS = Path(".fuseline/tune/trials.db")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
WHY = "refused"
"""Attribute of a trial whose values do not fit each other: the reason."""


class TimeIsUpError(Exception):
    """The budget is spent in the middle of a trial, which goes on when the search does."""


@dataclass(frozen=True)
class Found:
    """What a search has come to so far."""

    name: str
    """Of the study, in the file of trials."""
    trials: int
    """Done, in all calls."""
    pruned: int
    best: dict[str, Any]
    """Dotted keys and their values."""
    value: float
    """Of the metric, on validation."""
    before: float | None
    """The same with params.yaml as it stands; None where its values are outside of the ranges."""


def search(path: Path, space: Path, trials: int, seconds: float | None) -> Found:
    """Run trials, in the current folder, until so many are done in all calls or the time of this call is up.

    Args:
        path: params.yaml.
        space: the search, as config.Search describes it.

    Raises:
        ConfigError: the search does not fit params.yaml; or another one runs here.
        ModelError: no trial came to an end, or an encoder cannot be loaded.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    params, wanted, document = config.load(path), config.load_search(space), config.read(path)
    _check_space(space, path, document, params, wanted)
    set_up(params.train)
    with _alone():
        study = _open(params, wanted, document)
        while len(_done(study)) < trials and time.monotonic() < deadline:
            study.sampler = optuna.samplers.TPESampler(  # one that was seeded alike would draw the first values again
                seed=params.train.seed + len(study.trials), n_startup_trials=wanted.startup_trials
            )
            try:
                _try(study, study.ask(), path, document, wanted, deadline)
            except TimeIsUpError:
                break
            _tell(study, wanted, trials)
        return _read(study, wanted, document)


def put(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with other values at dotted keys, each of which it has."""
    changed = copy.deepcopy(dict(document))
    for key, value in values.items():
        *parents, last = key.split(".")
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed


def get(document: Mapping[str, Any], key: str) -> Any:
    """Return what stands at a dotted key.

    Raises:
        KeyError: the document has no such key.
    """
    node: Any = document
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            raise KeyError(key)
        node = node[name]
    return node


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into an overlay of params.yaml."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def write_overlay(found: Found, search: Path, path: Path) -> None:
    """Write the best values as a file that `fuseline configure` lays over params.yaml."""
    before = "not known" if found.before is None else f"{found.before:.4f}"
    head = (
        f"# Best of {found.trials} trials ({found.pruned} pruned) of {search.name}: {found.value:.4f} on validation; "
        f"params.yaml as it stood: {before}.\n# fuseline configure {path.name}\n"
    )
    part = path.with_name(path.name + ".part")
    part.write_text(head + yaml.safe_dump(nest(found.best), sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(part, path)


def _check_space(
    space: Path, path: Path, document: Mapping[str, Any], params: Params, wanted: Search
) -> None:  # fmt: skip
    """Refuse keys that are not there or change nothing of the member, and ends of ranges that do not fit."""
    if wanted.member not in params.members.all():
        raise ConfigError(f"{space}: member: {wanted.member!r} is none of {', '.join(params.members.all())}")
    own = f"members.{_kind(params, wanted.member)}.{wanted.member}."
    for key, entry in wanted.space.items():
        if not key.startswith((own, "encoders.")):
            raise ConfigError(
                f"{space}: space.{key}: no number of {wanted.member}'s training; expected a key below {own[:-1]} or "
                "encoders"
            )
        if key.startswith("encoders.") and params.pretrain is not None:
            raise ConfigError(
                f"{space}: space.{key}: encoders were pre-trained as params.yaml has them; set pretrain to null"
            )
        try:
            get(document, key)
        except KeyError:
            raise ConfigError(f"{space}: space.{key}: params.yaml has no such key; put it there first") from None
        for value in entry.choices if isinstance(entry, Choices) else (entry.low, entry.high):
            try:
                config.check(path, put(document, {key: value}))
            except ConfigError as error:
                raise ConfigError(f"{space}: space.{key}: {value!r} does not fit: {error}") from error


def _kind(params: Params, member: str) -> str:
    return "experts" if member in params.members.experts else "fusions"


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the file of trials; a killed search lets go of it."""
    TRIALS.parent.mkdir(parents=True, exist_ok=True)
    with TRIALS.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{TRIALS}: another search runs here; wait for it, or stop it") from None
        for left in TRIALS.parent.glob("trial-*"):
            shutil.rmtree(left)
        yield


def _open(params: Params, wanted: Search, document: Mapping[str, Any]) -> optuna.Study:
    """Open the study: first comes params.yaml as it stands, and what was cut off comes again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{TRIALS}", study_name=_name(params, wanted, document), load_if_exists=True,
        direction="minimize" if wanted.metric == "loss" else "maximize",
        pruner=optuna.pruners.MedianPruner(wanted.startup_trials, wanted.warmup_epochs + 1),  # steps count from 0 there
    )  # fmt: skip
    if not study.trials and (now := _present(wanted, document)) is not None:
        study.enqueue_trial(now)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params)
    return study


def _name(params: Params, wanted: Search, document: Mapping[str, Any]) -> str:
    """Name a study by all that its trials share."""
    kind = _kind(params, wanted.member)
    shared = put(document, dict.fromkeys(wanted.space))
    starts = [START.with_suffix(".json")] if params.members.all()[wanted.member].warm_start is not None else []
    if kind == "fusions":
        starts += [
            EXPERTS / name / "model.safetensors" for name in params.members.fusions[wanted.member].start.values()
        ]
    if params.pretrain is not None:
        starts += [PRETRAINED / f"{name}{SUFFIX}" for name in sorted(params.pretrain.modalities)]
    for file in starts:
        if not file.is_file():
            raise ModelError(f"{file}: not found; what {wanted.member} starts from is made by `dvc repro`")
    parts = {
        "search": wanted.model_dump(mode="json", exclude={"startup_trials", "warmup_epochs"}),
        "params": [shared["task"], shared["encoders"], shared["members"][kind][wanted.member]],
        "train": params.train.model_dump(mode="json", exclude={"checkpoint_steps"}),
        "data": [digest_of(file) for split in ("train", "val") for file in files_of(PREPARED / split)],
        "starts": [digest_of(file) for file in starts],
    }
    return f"{wanted.member}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}"


def _present(wanted: Search, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what params.yaml has, as Optuna takes it; None where a value is outside of its range or choices."""
    found: dict[str, Any] = {}
    for key, entry in wanted.space.items():
        value = get(document, key)
        if isinstance(entry, Choices):
            if value not in entry.choices:
                return None
            found[key] = json.dumps(value)
        elif isinstance(value, int | float) and entry.low <= value <= entry.high and type(value) in (int, entry.kind):
            found[key] = entry.kind(value)
        else:
            return None
    return found


def _suggest(trial: optuna.Trial, key: str, entry: Range | Choices) -> Any:
    if isinstance(entry, Choices):  # Optuna stores names and numbers only
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in entry.choices]))
    if entry.kind is int:
        return trial.suggest_int(key, int(entry.low), int(entry.high), log=entry.log)
    return trial.suggest_float(key, entry.low, entry.high, log=entry.log)


def _try(
    study: optuna.Study, trial: optuna.Trial, path: Path, document: Mapping[str, Any], wanted: Search, deadline: float
) -> None:
    """Train the member with a trial's values, and tell the study what came of it."""
    values = {key: _suggest(trial, key, entry) for key, entry in wanted.space.items()}
    try:
        params = config.check(path, put(document, values))
    except ConfigError as error:
        trial.set_user_attr(WHY, str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    watch = _Watch(trial, wanted, _task(params).headline, deadline)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=TRIALS.parent) as folder:
        try:
            _train(params, wanted.member, Path(folder), watch)
            epochs = History.read(Path(folder) / "history.json").epochs
        except ModelError:
            if not watch.diverged:
                raise
    if watch.pruned or watch.diverged:
        study.tell(trial, state=TrialState.PRUNED)
        return
    patient = params.members.all()[wanted.member].patience is not None
    kept = min(epochs, key=lambda epoch: epoch.val_loss) if patient else epochs[-1]
    study.tell(trial, _measure(kept, wanted))


def _measure(epoch: Epoch, wanted: Search) -> float:
    return epoch.val_loss if wanted.metric == "loss" else epoch.val_score


def _task(params: Params) -> Task:
    return build_task(params.task.kind, params.task.labels, params.task.scheme)


def _train(params: Params, name: str, folder: Path, watch: TrainerCallback) -> None:
    recipe = params.members.all()[name]
    task = _task(params)
    place, pretrained = f"{_kind(params, name)}/{name}", None if params.pretrain is None else PRETRAINED
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


def _done(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that were cut off do not, those whose values do not fit do."""
    return [trial for trial in study.trials if trial.state in DONE or WHY in trial.user_attrs]


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _tell(study: optuna.Study, wanted: Search, trials: int) -> None:
    last, done = study.trials[-1], len(_done(study))
    came = f"{wanted.metric} {last.value:.4f}" if last.value is not None and last.state in DONE[:1] else "pruned"
    came = last.user_attrs.get(WHY, came).splitlines()[0]
    best = f", best {study.best_value:.4f}" if _complete(study) else ""
    say(f"tune {wanted.member}: trial {done} of {trials}, {came}{best}")


def _read(study: optuna.Study, wanted: Search, document: Mapping[str, Any]) -> Found:
    complete, done = _complete(study), _done(study)
    if not complete:
        raise ModelError(f"tune {wanted.member}: no trial has come to an end yet; give it more trials or seconds")
    best, now = study.best_trial, _present(wanted, document)
    values = {
        key: json.loads(best.params[key]) if isinstance(entry, Choices) else best.params[key]
        for key, entry in wanted.space.items()
    }
    before = next((trial.value for trial in complete if trial.params == now), None)
    pruned = sum(trial.state == TrialState.PRUNED for trial in done)
    assert best.value is not None
    return Found(study.study_name, len(done), pruned, values, best.value, before)
