"""Part of the benchmark: how fast members train, beside a plain Trainer loop and AutoGluon-Multimodal.

Each side is a process of its own: `python -m benchmarks.training SIDE EPOCHS` in a clone that has build/prepare. A
rate is over the epochs after the first, so that starting, loading and decoding count for no side.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from torch import Tensor

from benchmarks.spine import dvc, run
from fuseline.config import Params, load
from fuseline.records import files_of
from fuseline.stages import entry
from fuseline.training.modalities.hub import find_model
from fuseline.training.modalities.text import load_tokenizer
from fuseline.training.pretrained import build_member
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up

FEW, MANY, ROUNDS = 1, 3, 3
LATER = 10
"""Epochs after the first over which a frozen encoder's are timed."""
MEMBER = "fusion"
PEER = "autogluon.multimodal==1.6.*"
ENCODER = {"name": "resnet18", "weights": None, "revision": None, "size": 64, "blocks": None, "several": False}
"""Of pictures: one that the peer has too."""


def measure_training(clone: Path) -> dict[str, Any]:
    """Time the sides in turns, and the epochs of frozen encoders."""
    given = yaml.safe_load((clone / "params.yaml").read_text())
    given["encoders"]["image"] = {key: ENCODER[key] for key in given["encoders"]["image"]}
    (clone / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False, allow_unicode=True))
    dvc(clone, "repro", "prepare")
    rows = sum(len(pd.read_parquet(file, columns=["label"])) for file in files_of(clone / entry.PREPARE / "train"))
    peer = install_peer(clone / ".peer")
    sides = {"ours": [sys.executable], "plain": [sys.executable], **({"autogluon": [peer]} if peer else {})}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            few_s, many_s = (time_side(clone, side, epochs, peer) for epochs in (FEW, MANY))
            rates[side].append(rows * (MANY - FEW) / (many_s - few_s))
    ratios = {
        f"ours_against_{side}": float(np.median(np.divide(rates["ours"], rates[side])))
        for side in sides
        if side != "ours"
    }
    return {
        "train_rows": rows, "rows_per_second": rates, **ratios, "frozen": measure_frozen(clone),
        "peer": PEER if peer else "not installed",
    }  # fmt: skip


def install_peer(folder: Path) -> str | None:
    """Install AutoGluon in an environment of its own; None, and a word why, where that does not work."""
    python = str(folder / "bin/python")
    for command in ([sys.executable, "-m", "venv", str(folder)], [python, "-m", "pip", "install", "--quiet", PEER]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"bench: {PEER} could not be installed: {done.stderr[-500:]}", flush=True)
            return None
    return python


def time_side(clone: Path, side: str, epochs: int, peer: str | None = None) -> float:
    """Return the seconds that a side's training takes, starting apart."""
    if side != "autogluon":
        return _told(run(clone, sys.executable, "-m", "benchmarks.training", side, str(epochs))[2])
    assert peer is not None
    script = Path(__file__).with_name("peer.py")
    write_for_peer(load(clone / "params.yaml"), clone, clone / ".peer-data")
    return _told(run(clone, peer, str(script), str(clone / ".peer-data"), str(epochs))[2])


def measure_frozen(clone: Path) -> dict[str, float]:
    """Time the first epoch of a member whose encoders are frozen, and the epochs after it.

    The first is what encoding takes, found as the difference to a training that finds all vectors in the cache, and
    one more epoch.
    """
    with tempfile.TemporaryDirectory() as cache:

        def seconds(epochs: int) -> float:
            return _told(run(clone, sys.executable, "-m", "benchmarks.training", "frozen", str(epochs), cache)[2])

        cold_s, warm_s, more_s = seconds(1), seconds(1), seconds(1 + LATER)
    later_s = (more_s - warm_s) / LATER
    first_s = cold_s - warm_s + later_s
    return {"first_epoch_seconds": first_s, "later_epoch_seconds": later_s, "ratio": first_s / later_s}


def _told(output: str) -> float:
    return float(json.loads(output.strip().splitlines()[-1])["seconds"])


def recipe_of(params: Params, epochs: int, frozen: bool = False) -> Any:
    """Return the fusion member's recipe without what the other sides do not do: random changes, early stopping."""
    changes: dict[str, Any] = {"epochs": epochs, "patience": None, "augment": {}, "start": {}}
    given = params.members.fusions[MEMBER].model_dump() | changes
    named = (*given["modalities"], "head")
    given["learning_rate"] = {name: rate for name, rate in given["learning_rate"].items() if name in named}
    if frozen:
        given["tuning"] = dict.fromkeys(given["modalities"], "frozen")
        given["learning_rate"] |= dict.fromkeys(given["modalities"])
    return type(params.members.fusions[MEMBER]).model_validate(given)


def train_ours(params: Params, epochs: int, frozen: bool = False) -> float:
    """Train as the stage does; return seconds."""
    recipe, task = recipe_of(params, epochs, frozen), entry.task_of(params)
    model = build_member(recipe, params.encoders, task, params.train.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        train_member(MEMBER, model, recipe, task, params.encoders, params.train, entry.PREPARE, Path(folder))
        return time.monotonic() - start


def train_plainly(params: Params, epochs: int) -> float:
    """Train the same model as tutorials do: a Trainer, texts padded to the maximum, pictures read anew each time."""
    from transformers import Trainer, TrainingArguments

    recipe = recipe_of(params, epochs)
    model = build_member(recipe, params.encoders, entry.task_of(params), params.train.seed)
    train, val = (PlainRows(entry.PREPARE / split, params) for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=64, learning_rate=recipe.learning_rate.text, eval_strategy="epoch",
            save_strategy="epoch", save_total_limit=1, use_cpu=True, report_to=[], disable_tqdm=True,
            remove_unused_columns=False, label_names=["labels"],
        )  # fmt: skip
        start = time.monotonic()
        Trainer(model=model, args=arguments, train_dataset=train, eval_dataset=val).train()
        return time.monotonic() - start


class PlainRows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows as dictionaries of tensors, each made when it is asked for."""

    def __init__(self, split: Path, params: Params) -> None:
        assert params.encoders.text is not None
        assert params.encoders.image is not None
        self.rows = [row for file in files_of(split) for row in pd.read_parquet(file).to_dict("records")]
        self.tokenizer = load_tokenizer(params.encoders.text)
        self.tokenizer.enable_padding(length=params.encoders.text.max_length)
        self.side, self.classes = params.encoders.image.size or 224, len(params.task.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        row = self.rows[number]
        encoding = self.tokenizer.encode(row["text"] or "")
        picture = Image.new("RGB", (self.side, self.side))
        if row["image"] is not None:
            picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").resize((self.side, self.side))
        return {
            "input_ids": torch.tensor(encoding.ids), "attention_mask": torch.tensor(encoding.attention_mask),
            "has_text": torch.tensor(row["text"] is not None), "pixels": torch.from_numpy(np.array(picture)),
            "has_image": torch.tensor(row["image"] is not None), "labels": torch.eye(self.classes)[row["label"]],
        }  # fmt: skip


def write_for_peer(params: Params, clone: Path, folder: Path) -> None:
    """Write what AutoGluon reads: tables with paths of pictures, and the text encoder's folder."""
    if folder.exists():
        return
    assert params.encoders.text is not None
    assert params.encoders.image is not None
    (folder / "pictures").mkdir(parents=True)
    for split in ("train", "val"):
        rows = pd.concat(pd.read_parquet(file) for file in files_of(clone / entry.PREPARE / split))
        paths = []
        for number, image in enumerate(rows["image"]):
            paths.append(str(folder / f"pictures/{split}-{number}.png") if image is not None else None)
            if image is not None:
                Path(str(paths[-1])).write_bytes(image["bytes"])
        pd.DataFrame({"text": rows["text"], "image": paths, "label": rows["label"]}).to_parquet(
            folder / f"{split}.parquet"
        )
    name = find_model("text", params.encoders.text.name, params.encoders.text.revision)["pretrained_model_name_or_path"]
    settings = {
        "text": str(name), "max_tokens": params.encoders.text.max_length, "image": params.encoders.image.name,
        "side": params.encoders.image.size, "batch_size": params.members.fusions[MEMBER].batch_size,
        "threads": params.train.threads,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))


SIDES: dict[str, Callable[[Params, int], float]] = {
    "ours": train_ours, "plain": train_plainly,
    "frozen": lambda params, epochs: train_ours(params, epochs, frozen=True),
}  # fmt: skip


def main(side: str, epochs: int, cache: str | None = None) -> None:
    """Train in the current folder and tell the seconds."""
    if cache is not None:
        os.environ["FUSELINE_CACHE"] = cache
    params = load()
    set_up(params.train)
    print(json.dumps({"seconds": SIDES[side](params, epochs)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
