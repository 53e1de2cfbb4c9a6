"""Trackers: TensorBoard and MLflow see a training through Trainer's own callbacks.

Who watches is no part of what a model is made from: in params.yaml it would make DVC train anew, and whoever reproduces
a version would need the same tracker. So the environment names them, and there are none by default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import MLflowCallback, TensorBoardCallback

from fuseline.errors import ConfigError

NAMES = "FUSELINE_TRACKERS"
FOLDER = "TENSORBOARD_LOGGING_DIR"
SERVER = "MLFLOW_TRACKING_URI"
DEFAULT_FOLDER = ".fuseline/tensorboard"


def build_trackers(name: str) -> list[TrainerCallback]:
    """Build the callbacks that the environment asks for.

    Args:
        name: of the training, such as `train text`.

    Raises:
        ConfigError: a tracker is unknown or not installed, or MLflow has no place to keep runs in.
    """
    asked = [part.strip() for part in os.environ.get(NAMES, "").split(",") if part.strip()]
    for unknown in set(asked) - set(BUILDERS):
        raise ConfigError(f"{NAMES}: unknown tracker {unknown!r}; expected some of {', '.join(BUILDERS)}")
    for missing in (tracker for tracker in asked if find_spec(tracker) is None):
        raise ConfigError(f"{NAMES}: {missing} is not installed; `make install` brings it, as requirements.lock says")
    return [BUILDERS[tracker](name) for tracker in asked]


def _build_tensorboard(name: str) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter  # the package may be missing

    folder = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).expanduser()
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return TensorBoardCallback(SummaryWriter(str(folder / re.sub(r"\W+", "-", name) / stamp)))


def _build_mlflow(name: str) -> TrainerCallback:
    place = os.environ.get(SERVER, "")
    if not re.match(r"(databricks|https?:|file:///|[a-z+]+:////)", place):  # a run's own folder is gone with the run
        raise ConfigError(
            f"{SERVER}: {place or 'not set'}; say where MLflow keeps runs, such as http://127.0.0.1:5000 or "
            "sqlite:////home/me/mlflow.db, no place beside the project"
        )
    return MLflowCallback()  # it takes the training's name from Trainer's `run_name`


BUILDERS: dict[str, Callable[[str], TrainerCallback]] = {"tensorboard": _build_tensorboard, "mlflow": _build_mlflow}
