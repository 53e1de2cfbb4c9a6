"""What tests of several stages share."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from fuseline import config
from fuseline.data.shards import write_data_set
from fuseline.records import Rehearsal

STAGES = ["validate", "prepare", "train", "fuse", "combine", "distill", "evaluate", "explain", "export",
          "rehearse", "benchmark"]  # fmt: skip
"""Of the whole line, but for pre-training."""
ROOT = Path(__file__).parents[2]
NO_AUGMENT = dict.fromkeys(["flip", "degrees", "translate", "scale", "color", "erase", "mixup"], 0.0)


@pytest.fixture(scope="session")
def document(encoders: config.Encoders, labels: list[str]) -> dict[str, Any]:
    """Give the project's own params.yaml, made small; copy it before changing anything in it."""
    found = yaml.safe_load((ROOT / "params.yaml").read_text())
    found["task"]["labels"] = labels
    found["validate"] |= {"max_text_chars": 27, "max_quarantined": 0.2}  # three texts are longer
    found["validate"] |= {"max_duplicates": 1.0, "max_conflicts": 1.0}
    found["prepare"] |= {"val": 0.25, "test": 0.25}
    found["encoders"] = encoders.model_dump() | {"audio": None}
    found["encoders"]["image"]["size"] = 16
    found["train"] |= {"threads": 1, "device": "cpu"}
    del found["members"]["fusions"]["all-words"]  # but for augmentation it is the other one
    small = {"dropout": 0.1, "epochs": 2, "batch_size": 4, "warmup": 0.1, "schedule": "linear", "label_smoothing": 0.0,
             "patience": None, "weight_decay": 0.0}  # fmt: skip
    for name, member in (found["members"]["experts"] | found["members"]["fusions"]).items():
        member |= small | {"augment": {} if name == "text" else {"image": dict(NO_AUGMENT)}}
        member["learning_rate"] = dict.fromkeys(member["learning_rate"], 0.01)
    found["members"]["fusions"]["fusion"] |= {"hidden": 8, "modality_dropout": 0.0}
    student = copy.deepcopy(found["members"]["fusions"]["fusion"]) | {"epochs": 1}
    found["distill"] = {"student": student, "encoders": None, "temperature": 2.0, "weight": 0.5}
    found["pretrain"] = {
        "modalities": ["text", "image"], "objectives": {"contrast": 1.0, "match": 1.0, "masked_words": 1.0},
        "hidden": 8, "heads": 2, "mask": 0.3, "learning_rate": {"text": 0.01, "image": 0.01, "head": 0.01},
        "optimizer": {"betas": [0.9, 0.999], "eps": 1e-8}, "weight_decay": 0.0, "max_grad_norm": 1.0, "epochs": 2,
        "batch_size": 6, "accumulation": 1, "warmup": 0.1, "schedule": "linear", "patience": None,
        "augment": {"image": dict(NO_AUGMENT)},
    }  # fmt: skip
    found["evaluate"]["resamples"] = 10
    found["benchmark"] |= {"calls": 2, "warmup": 1, "batch_sizes": [1, 2], "roofline": 1}
    found["benchmark"] |= {
        "offline": {"rows": 4, "calls": 1},
        "server": {"rates": [50.0], "rows": 3, "largest_batch": 2},
    }
    found["rehearse"]["rows"] = 3
    return found


def run(document: dict[str, Any], *stages: str) -> None:
    """Run stages in the current folder, for all members."""
    params = config.Params.model_validate(document)
    names = {"train": params.members.experts, "fuse": params.members.fusions}
    for stage in stages:
        main = importlib.import_module(f"fuseline.stages.{stage}").main
        for arguments in [(name,) for name in names[stage]] if stage in names else [()]:
            main(params, *arguments)


@contextmanager
def whole_line(folder: Path, document: dict[str, Any], rows: pa.Table) -> Iterator[Path]:
    """Give a folder in which all stages have run on a data set of these rows."""
    task = document["task"]
    write_data_set(folder / "data", "tiny", task["kind"], task["labels"], [rows])
    with line_on_data(folder, document):
        yield folder


@contextmanager
def line_on_data(folder: Path, document: dict[str, Any]) -> Iterator[Path]:
    """Give a folder in which all stages have run on the data set that is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(document, *STAGES)
    rehearsal = Rehearsal.read(folder / "build/rehearse/rehearsal.json")
    assert (rehearsal.problem, rehearsal.agreement) == (None, 1.0)
    yield folder
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
