"""Training that was killed goes on where it stood.

Its checkpoints lie in the cache, under a key of all that the result depends on: another recipe, another row, another
line of code never goes on with them. They go when the training is done, or was forgotten for a week.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerState
from transformers.trainer_callback import TrainerControl

from fuseline import cache
from fuseline.models.joint import JointModel
from fuseline.models.member import FusionModel
from fuseline.records import digest_of

FORGOTTEN_S = 7 * 24 * 3600
MARK = "complete.json"
"""Written into a checkpoint last: one without it was cut short."""


def key_of(model: FusionModel | JointModel, data: list[Path], told: dict[str, Any]) -> str:
    """Digest all that a training's result depends on.

    Args:
        model: as it is before training.
        data: the files that it is trained and validated on.
        told: settings.
    """
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        weights.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    package = Path(cache.__file__).parent
    parts = told | {
        "weights": weights.hexdigest(),
        "trained": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "config": model.config.to_dict(),
        "data": [digest_of(path) for path in data],
        "code": cache.code_of(
            *(str(path.relative_to(package).with_suffix("")) for path in sorted(package.rglob("*.py")))
        ),
        "versions": cache.versions_of(
            "accelerate", "numpy", "peft", "tokenizers", "torch", "torchvision", "transformers"
        ),
        "processor": [torch.backends.cpu.get_cpu_capability(), *_gpus()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


@contextmanager
def keep(key: str, first: bool) -> Iterator[Path]:
    """Give the folder of a training's checkpoints; it goes when the block ends well.

    Args:
        first: whether this process is the one that writes. It waits for one of another run that trains the same.
    """
    folder = cache.find_folder() / "training" / key
    if not first:
        yield folder
        return
    _forget(folder.parent)
    with _locked(folder):
        yield folder
        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / "lock").exists() and os.fstat(lock.fileno()).st_ino == (folder / "lock").stat().st_ino:
                yield
                return  # closing the file opens the lock


def _forget(folder: Path) -> None:
    for path in folder.glob("*"):
        if time.time() - path.stat().st_mtime > FORGOTTEN_S:
            shutil.rmtree(path, ignore_errors=True)


def mark(checkpoint: Path, loss: float, logged_at: int) -> None:
    """Say that a checkpoint is whole, and what the Trainer would forget: the loss since it was last logged."""
    part = checkpoint / f"{MARK}.part"
    part.write_text(json.dumps({"loss": loss, "logged_at": logged_at}))  # a loss that diverged is NaN, and comes back
    os.replace(part, checkpoint / MARK)


def read_mark(checkpoint: Path) -> tuple[float, int]:
    """Return the loss since it was last logged, and the step of that."""
    found = json.loads((checkpoint / MARK).read_text())
    return found["loss"], found["logged_at"]


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; those that were cut short are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if (path / MARK).is_file()]
    for path in set(found) - set(whole):
        shutil.rmtree(path)
    return whole[-1] if whole else None


def finished(checkpoint: Path) -> TrainerState | None:
    """Return the state of a training that had nothing left to do, or None."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    control = state.stateful_callbacks[TrainerControl.__name__]
    assert isinstance(control, dict)
    return state if control["args"]["should_training_stop"] else None


def load_result(model: FusionModel | JointModel, checkpoint: Path, state: TrainerState) -> None:
    """Put the weights that a finished training ended with into `model`."""
    best = state.best_model_checkpoint
    model.load_state_dict(load_file(Path(best or checkpoint) / "model.safetensors"))
