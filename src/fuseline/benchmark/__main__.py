"""`python -m fuseline.benchmark`: the same as `fuseline benchmark`, where little else is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from fuseline.benchmark.command import make_command
from fuseline.errors import FuselineError


def load_torch(build: Path) -> Any:
    """Load the ensemble that a build/ holds."""
    from fuseline.training.checkpoints import load_ensemble, read_combination

    return load_ensemble(build / "train", read_combination(build / "combine"))


if __name__ == "__main__":
    try:
        typer.run(make_command(load_torch))
    except FuselineError as error:
        sys.exit(f"error: {error}")
