"""What every stage does around its work: read params, make room, turn errors into words."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from fuseline.config import Params, load
from fuseline.errors import DISK_FULL, FuselineError, is_disk_full

DATA = Path("data")
BUILD = Path("build")
VALIDATE = BUILD / "validate"
PREPARE = BUILD / "prepare"
TRAIN = BUILD / "train"
EXPERTS = TRAIN / "experts"
FUSIONS = TRAIN / "fusions"
COMBINE = BUILD / "combine"
EVALUATE = BUILD / "evaluate"
EXPORT = BUILD / "export"
BENCHMARK = BUILD / "benchmark"


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage on params.yaml; exit 1 with a plain message where the user can mend it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        stage(load())
    except FuselineError as error:
        sys.exit(f"error: {error}")
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        sys.exit(f"error: {DISK_FULL}")


def fresh(folder: Path) -> Path:
    """Empty an output folder: what a failed run left there must not be taken for a result."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
