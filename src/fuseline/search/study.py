"""The file of trials: what was tried, by which name, and what came of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from fuseline.config import Choices, Params, Search
from fuseline.errors import ConfigError, ModelError
from fuseline.progress import say
from fuseline.records import digest_of, files_of
from fuseline.search.space import find_present, nest, put
from fuseline.training.pretraining import SUFFIX

PREPARED, PRETRAINED = Path("build/prepare"), Path("build/pretrain")
EXPERTS, START = Path("build/train/experts"), Path("start")
TRIALS = Path(".fuseline/tune/trials.db")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
WHY = "refused"
"""Attribute of a trial that could not be run with its values: the reason."""


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


@contextmanager
def alone() -> Iterator[None]:
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


def open_study(params: Params, wanted: Search, document: Mapping[str, Any]) -> optuna.Study:
    """Open the study: first comes params.yaml as it stands, and what was cut off comes again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{TRIALS}", study_name=name_study(params, wanted, document), load_if_exists=True,
        direction="minimize" if wanted.metric == "loss" else "maximize",
        pruner=optuna.pruners.MedianPruner(wanted.startup_trials, wanted.warmup_epochs + 1),  # steps count from 0 there
    )  # fmt: skip
    if not study.trials and (now := find_present(wanted, document)) is not None:
        study.enqueue_trial(now)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params)
    return study


def name_study(params: Params, wanted: Search, document: Mapping[str, Any]) -> str:
    """Name a study by all that its trials share."""
    kind = params.members.kind(wanted.member)
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


def done(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that were cut off do not, those that failed with their values do."""
    return [trial for trial in study.trials if trial.state in DONE or WHY in trial.user_attrs]


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def tell(study: optuna.Study, wanted: Search, trials: int) -> None:
    """Say what came of the last trial."""
    last = study.trials[-1]
    came = f"{wanted.metric} {last.value:.4f}" if last.value is not None and last.state in DONE[:1] else "pruned"
    came = last.user_attrs.get(WHY, came).splitlines()[0]
    best = f", best {study.best_value:.4f}" if _complete(study) else ""
    say(f"tune {wanted.member}: trial {len(done(study))} of {trials}, {came}{best}")


def read_found(study: optuna.Study, wanted: Search, document: Mapping[str, Any]) -> Found:
    """Return what the trials so far have come to.

    Raises:
        ModelError: none has come to an end.
    """
    complete, counted = _complete(study), done(study)
    if not complete:
        failed = [f"; the last failed: {trial.user_attrs[WHY]}" for trial in counted if WHY in trial.user_attrs]
        raise ModelError(
            f"tune {wanted.member}: no trial has come to an end yet; give it more trials or seconds"
            + "".join(failed[-1:])
        )
    best, now = study.best_trial, find_present(wanted, document)
    values = {
        key: json.loads(best.params[key]) if isinstance(entry, Choices) else best.params[key]
        for key, entry in wanted.space.items()
    }
    before = next((trial.value for trial in complete if trial.params == now), None)
    pruned = sum(trial.state == TrialState.PRUNED for trial in counted)
    assert best.value is not None
    return Found(study.study_name, len(counted), pruned, values, best.value, before)


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
