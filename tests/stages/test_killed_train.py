"""A training stage that was killed, run again, leaves the same files as one that was not, to the last byte."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuseline.records import sha256_of

pytestmark = pytest.mark.slow
AUGMENT = {"flip": 0.5, "degrees": 20.0, "translate": 0.1, "scale": 0.1, "color": 0.2, "erase": 0.1, "mixup": 0.4}
CHANGES: dict[str, dict[str, Any]] = {
    "text": {"dropout": 0.3, "patience": 4, "augment": {"text": {"drop": 0.2, "swap": 0.2}}},
    "image": {"dropout": 0.3, "augment": {"image": AUGMENT}},
}


def place(folder: Path, document: dict[str, Any], prepared: Path) -> Path:
    """Make a folder in which the stage `train` can run."""
    (folder / "build").mkdir(parents=True)
    (folder / "build/prepare").symlink_to(prepared)
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder


def start(folder: Path, member: str) -> subprocess.Popen[str]:
    environment = os.environ | {"FUSELINE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "fuseline.stages.train", member]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, member: str) -> str:
    process = start(folder, member)
    words = process.communicate(timeout=300)[1]
    assert process.returncode == 0, words
    return words


def made(folder: Path, member: str) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (folder / f"build/train/experts/{member}").iterdir()}


@pytest.mark.parametrize("member", CHANGES)
def test_a_stage_that_was_killed_goes_on_to_the_same_files(
    member: str, document: dict[str, Any], prepared: Path, tmp_path: Path
) -> None:
    params = copy.deepcopy(document)
    params["members"]["experts"][member] |= CHANGES[member] | {"epochs": 8}
    params["train"]["checkpoint_steps"] = 2
    finish(place(tmp_path / "whole", params, prepared), member)
    killed = place(tmp_path / "killed", params, prepared)
    process = start(killed, member)
    steps = random.randint(2, 30)
    while not any(int(path.parent.name.rpartition("-")[2]) >= steps
                  for path in killed.glob("cache/training/*/checkpoint-*/complete.json")):  # fmt: skip
        assert process.poll() is None, f"it ended before step {steps}"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "model.safetensors" not in made(killed, member)
    assert "goes on after step" in finish(killed, member), steps
    assert made(killed, member) == made(tmp_path / "whole", member), steps
    assert list(killed.glob("cache/training/*")) == []


def test_other_params_never_go_on_with_it_and_without_checkpoints_there_are_none(
    document: dict[str, Any], prepared: Path, tmp_path: Path
) -> None:
    params = copy.deepcopy(document)
    params["members"]["experts"]["text"]["epochs"] = 8
    params["train"]["checkpoint_steps"] = 1
    folder = place(tmp_path / "a", params, prepared)
    process = start(folder, "text")
    while not list(folder.glob("cache/training/*/checkpoint-*/complete.json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.communicate()
    left = list(folder.glob("cache/training/*"))
    params["members"]["experts"]["text"]["dropout"] = 0.2
    params["train"]["checkpoint_steps"] = None
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert "goes on" not in finish(folder, "text")
    assert list(folder.glob("cache/training/*")) == left
