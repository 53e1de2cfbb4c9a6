"""What every stage does around its work: read params, make room, turn errors into words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from safetensors import SafetensorError

from fuseline.config import Members, Params, load
from fuseline.errors import DISK_FULL, ConfigError, FuselineError, ModelError, is_disk_full
from fuseline.tasks import build_task
from fuseline.tasks.base import Task

DATA = Path("data")
BUILD = Path("build")
VALIDATE = BUILD / "validate"
PREPARE = BUILD / "prepare"
PRETRAIN = BUILD / "pretrain"
TRAIN = BUILD / "train"
EXPERTS = TRAIN / "experts"
FUSIONS = TRAIN / "fusions"
COMBINE = BUILD / "combine"
DISTILL = BUILD / "distill"
EVALUATE = BUILD / "evaluate"
PATTERNS = EVALUATE / "patterns.parquet"
"""What the ensemble says of the test rows when only some modalities are given."""
EXPLAIN = BUILD / "explain"
EXPORT = BUILD / "export"
REHEARSE = BUILD / "rehearse"
BENCHMARK = BUILD / "benchmark"
PUBLIC_KEY = "FUSELINE_PUBLIC_KEY"
"""Environment: runtime.signature reads it."""
START = Path("start")
"""Where start.json, beside it, says that the champion's members are."""


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage on params.yaml; exit 1 with a plain message where the user can mend it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.pop(PUBLIC_KEY, None)  # a bundle is signed when it is published
    try:
        stage(load())
    except FuselineError as error:
        sys.exit(f"error: {error}")
    except (OSError, SafetensorError) as error:
        if isinstance(error, FileNotFoundError):
            sys.exit(f"error: {error.filename}: not found; an earlier stage makes it: `dvc repro`")
        if not is_disk_full(error):
            raise
        sys.exit(f"error: {DISK_FULL}")


def task_of(params: Params) -> Task:
    """Return the problem that members are trained for.

    Raises:
        ConfigError: for problems of its kind there are no members yet.
    """
    return build_task(params.task.kind, params.task.labels, params.task.scheme)


def run_member(stage: Callable[[Params, str], None], known: Callable[[Members], Collection[str]]) -> None:
    """Run a stage on the member that the command line names, one of those that `known` picks."""

    def on_member(params: Params) -> None:
        task_of(params)
        names = known(params.members)
        if len(sys.argv) != 2 or sys.argv[1] not in names:
            raise ConfigError(f"expected one member's name: {', '.join(names) or 'params.yaml has none'}")
        _share_work(params, lambda params: stage(params, sys.argv[1]))

    run(on_member)


def run_shared(stage: Callable[[Params], None]) -> None:
    """Run a stage that trains on params.yaml, in as many processes as params say."""
    run(lambda params: _share_work(params, stage))


def _share_work(params: Params, stage: Callable[[Params], None]) -> None:
    if params.train.processes == 1 or "RANK" in os.environ:
        stage(params)
    else:
        _share(params.train.processes)


def _share(processes: int) -> None:
    """Run this command as several processes that know of each other, by torchrun."""
    module = sys.modules["__main__"].__spec__
    assert module is not None
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
         "-m", module.name, *sys.argv[1:]], check=False,
    )  # fmt: skip
    if done.returncode:
        raise ModelError(f"one of the {processes} processes failed; what it said stands above")


def fresh(folder: Path) -> Path:
    """Empty an output folder: what a failed run left there must not be taken for a result."""
    if os.environ.get("RANK", "0") != "0":  # of processes that share the work, the first writes
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
