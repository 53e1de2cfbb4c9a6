"""Every preset is sound, says what it costs, and goes from its own names of weights to a bundle.

The weights are small and random, but lie where those of the hub and of torchvision would after a download.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torchvision
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from fuseline import config
from fuseline.cli import app
from fuseline.data.shards import write_data_set, write_table
from fuseline.overlay import lay
from fuseline.records import Parity, Preparation
from fuseline.runtime.predictor import Predictor, Row

ROOT = Path(__file__).parents[1]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
KINDS = {"bert-resnet50": "bert", "gpt2-resnet50": "gpt2"}
"""What each preset's text model is, as Hugging Face names it."""
LINE = """
import runpy, sys
for words in (["train", "text"], ["train", "image"], ["fuse", "fusion"], ["combine"], ["evaluate"], ["export"]):
    sys.argv = words
    runpy.run_module(f"fuseline.stages.{words[0]}", run_name="__main__")
"""
"""Runs all stages in one process: starting takes each of them longer than the work."""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


def test_every_preset_is_looked_at() -> None:
    assert sorted(KINDS) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_asks_for_in_its_head(name: str) -> None:
    head = re.findall(r"^#   (\w+) +(\S.*)$", (ROOT / f"presets/{name}.yaml").read_text(), re.M)
    assert [key for key, _ in head] == ["command", "needs", "hardware", "time", "score"]
    assert f"fuseline configure presets/{name}.yaml" in dict(head)["command"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_laid_by_its_command(name: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    params = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    done = CliRunner().invoke(app, ["configure", str(ROOT / f"presets/{name}.yaml"), "--repo", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = config.load(params)
    assert found.encoders.text is not None
    assert isinstance(found.encoders.image, config.ImageEncoder)
    assert (found.encoders.image.name, found.encoders.image.weights) == ("resnet50", "IMAGENET1K_V2")
    assert found.encoders.text.pooling == ("last" if KINDS[name] == "gpt2" else "mean")


def put_text_weights(kind: str, name: str, revision: str, text_folder: Path, hub: Path) -> None:
    """Put a tiny model with its pretraining head, as the hub holds one, into the cache of downloads."""
    place = hub / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / revision
    torch.manual_seed(0)
    if kind == "bert":
        shutil.copytree(text_folder, snapshot)
        shape = BertConfig.from_pretrained(text_folder)
        BertForMaskedLM(shape).save_pretrained(snapshot)
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<|endoftext|>"])}
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
        ).save_pretrained(snapshot)
        last = len(alphabet)
        GPT2LMHeadModel(
            GPT2Config(vocab_size=last + 1, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=last,
                       eos_token_id=last)
        ).save_pretrained(snapshot)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_and_exports(
    name: str, params: Path, examples: pa.Table, labels: list[str], text_folder: Path, picture: Callable[..., bytes],
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "small.yaml").write_text(SMALL)
    lay(params, ROOT / f"presets/{name}.yaml", tmp_path / "small.yaml")
    text: Any = config.load(params).encoders.text
    put_text_weights(KINDS[name], text.name, text.revision, text_folder, tmp_path / "home/hub")
    resnet = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "torch/hub/checkpoints" / Path(resnet.url).name)
    write_data_set(tmp_path / "data", "tiny", "classification", labels, [examples.slice(0, 18)])
    numbers = pa.array([labels.index(target) for target in examples["target"].to_pylist()], pa.int64())
    table = examples.append_column("label", numbers)
    for split, start in {"train": 0, "val": 6, "test": 12}.items():
        write_table(table.slice(start, 6), tmp_path / "build/prepare" / split / "shard-00000-a.parquet")
    sizes = dict.fromkeys(("train", "val", "test"), 6)
    Preparation(rows=sizes, groups=sizes, labels={}).write(tmp_path / "build/prepare/preparation.json")

    environment = os.environ | {
        "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "torch"),
        "FUSELINE_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LINE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    parity = Parity.read(tmp_path / "build/export/parity.json")
    assert parity.max_logit_difference < 1e-3
    assert (parity.argmax_agreement, parity.rows) == (1.0, 6)
    predictor = Predictor(tmp_path / "build/export/bundle", ["CPUExecutionProvider"], threads=1)
    (answer,) = predictor.answer([Row("the rose", picture())])
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-4)


SMALL = """
task: {labels: [red, green, blue]}
encoders: {text: {max_length: 12}}
train: {threads: 1, device: cpu}
members:
  experts:
    text: {epochs: 1, batch_size: 6}
    image: {epochs: 1, batch_size: 6}
  fusions: {fusion: {epochs: 1, batch_size: 6}}
evaluate: {resamples: 10}
export: {parity_batch_sizes: [1, 4]}
"""
