"""The search itself.

A trial is the member's own training, as its stage does it, on what the prepare stage left: its best values give the
stage the same weights. Trials are kept in an SQLite file, under a name that follows from search, params and data.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import optuna

from fuseline import config
from fuseline.config import Fusion, Params
from fuseline.errors import ModelError
from fuseline.lineage import dvc
from fuseline.search.space import check_space
from fuseline.search.study import Found, alone, done, open_study, read_found, tell
from fuseline.search.trial import TimeIsUpError, try_values
from fuseline.training.trainer import set_up


def search(path: Path, space: Path, trials: int, seconds: float | None) -> Found:
    """Run trials, in the current folder, until so many are done in all calls or the time of this call is up.

    Args:
        path: params.yaml.
        space: the search, as config.Search describes it.

    Raises:
        ConfigError: the search does not fit params.yaml; or another one runs here.
        ModelError: no trial came to an end.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    params, wanted, document = config.load(path), config.load_search(space), config.read(path)
    check_space(space, path, document, params, wanted)
    set_up(params.train)
    with alone():
        study = open_study(params, wanted, document)
        while len(done(study)) < trials and time.monotonic() < deadline:
            study.sampler = optuna.samplers.TPESampler(  # one that was seeded alike would draw the first values again
                seed=params.train.seed + len(study.trials), n_startup_trials=wanted.startup_trials
            )
            try:
                try_values(study, study.ask(), path, document, wanted, deadline)
            except TimeIsUpError:
                break
            tell(study, wanted, trials)
        return read_found(study, wanted, document)


def check_fresh(path: Path, space: Path) -> None:
    """Refuse to train, in the current folder, on what stages made of other params, data or code than there are now.

    Raises:
        ConfigError: a file is not what it should be.
        ModelError: naming what changed, and the command that mends it.
    """
    params = config.load(path)
    stages = stages_before(params, config.load_search(space).member)
    if stale := dvc.find_stale(Path(), *stages):
        what = "; ".join(f"{stage}: {', '.join(changed)}" for stage, changed in stale.items())
        raise ModelError(f"what trials start from is not up to date ({what}); run `dvc repro {' '.join(stages)}`")


def stages_before(params: Params, member: str) -> list[str]:
    """Name the stages of dvc.yaml that make what a member's training starts from."""
    recipe = params.members.all().get(member)
    experts = sorted(set(recipe.start.values())) if isinstance(recipe, Fusion) else []
    return ["prepare", *["pretrain"] * (params.pretrain is not None), *(f"train@{name}" for name in experts)]
