"""Processes that share a step's rows come to what one comes to, and only the first writes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fuseline import config
from fuseline.records import History

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
"""Largest difference of a weight. Sums in another order differ in the last digits; what would differ by more is not
in this member: dropout, which each process draws for itself, and norms over a batch."""


def train(folder: Path, document: dict[str, Any], prepared: Path, processes: int) -> Path:
    params = copy.deepcopy(document)
    params["train"]["processes"] = processes
    (folder / "build").mkdir(parents=True)
    (folder / "build/prepare").symlink_to(prepared)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    environment = os.environ | {"FUSELINE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "fuseline.stages.train", "text"], cwd=folder, env=environment, capture_output=True,
        text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train text: done") == 1
    return folder / "build/train/experts/text"


@pytest.mark.parametrize("soup", [None, {"seeds": 2}], ids=["once", "a soup"])
def test_two_processes_train_as_one(
    soup: dict[str, int] | None, document: dict[str, Any], still_encoders: config.Encoders, prepared: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    params = copy.deepcopy(document)
    params["train"]["length_pool"] = 2
    params["encoders"]["text"] = still_encoders.model_dump(mode="json")["text"]
    params["members"]["experts"]["text"] |= {
        "dropout": 0.0, "epochs": 3, "batch_size": 8, "label_smoothing": 0.1, "patience": 2,  # 21 rows: 8, 8, 5
        "class_weights": "balanced", "augment": {"text": {"drop": 0.2, "swap": 0.2}}, "soup": soup,
    }  # fmt: skip
    one, two = (train(tmp_path / str(number), params, prepared, number) for number in (1, 2))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    weights, found = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, tensor in weights.items():
        torch.testing.assert_close(found[name], tensor, atol=TOLERANCE, rtol=0)
    curves = [History.read(folder / "history.json").epochs for folder in (one, two)]
    for mine, theirs in zip(*curves, strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, abs=TOLERANCE)
        assert theirs.val_loss == pytest.approx(mine.val_loss, abs=TOLERANCE)
