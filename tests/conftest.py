"""Tiny real things: a text model in a folder, examples, members, an ensemble and its bundle."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fuseline import config
from fuseline.data.shards import SCHEMA, write_table
from fuseline.export.bundle import Contents, write_bundle
from fuseline.export.parity import Reference
from fuseline.inputs.base import Reader
from fuseline.models.combine import Combiner
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.records import Agreement, Estimate, Evaluation
from fuseline.runtime.predictor import Row
from fuseline.tasks.classification import Classification
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.hub import digest_model
from fuseline.training.modalities.text import load_tokenizer
from fuseline.training.pretrained import build_member

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
settings.register_profile("same", untimed, derandomize=True)  # a run fails for what was changed, not by chance
settings.register_profile("search", untimed, derandomize=False, max_examples=5000)
settings.load_profile("same")

BLOCK = """
import sys
class _Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "fuseline"}:
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, _Refuse())
"""
"""Code after which Python finds neither torch, transformers nor fuseline."""
LABELS = ["red", "green", "blue"]
WORDS = {"red": ["rose", "cherry", "brick"], "green": ["leaf", "frog", "lime"], "blue": ["sky", "sea", "jeans"]}
COLORS = {"red": (210, 30, 40), "green": (30, 190, 60), "blue": (40, 60, 220)}


def run_readme(folder: Path, tmp_path: Path, **constants: str) -> str:
    """Run the README's snippet where torch, transformers and fuseline cannot be imported; return what it says."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(BLOCK)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    for name, value in constants.items():
        code, changed = re.subn(rf"^{name} = .*$", lambda _, line=f"{name} = {value}": line, code, flags=re.MULTILINE)
        assert changed == 1
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", code], check=False, cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests cache out of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def labels() -> list[str]:
    """Give the three classes."""
    return LABELS


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Give the painter of encoded, one-coloured pictures."""
    return paint


def paint(color: Any = (210, 30, 40), width: int = 40, height: int = 36, form: str = "PNG", mode: str = "RGB") -> bytes:
    """Encode a picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height), color).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """Give the player of encoded, pure tones."""
    return play


def play(hz: float, seconds: float = 0.3, rate: int = 8000, form: str = "WAV") -> bytes:
    """Encode a tone at half of full scale."""
    buffer = io.BytesIO()
    phase = 2 * np.pi * hz * np.arange(round(seconds * rate)) / rate
    soundfile.write(buffer, (0.5 * np.sin(phase)).astype(np.float32), rate, format=form)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def examples() -> pa.Table:
    """Give 42 sound examples of three classes; every seventh lacks its text, every fifth its picture."""
    return pa.Table.from_pylist([_example(number) for number in range(42)], schema=SCHEMA)


def _example(number: int) -> dict[str, Any]:
    label = LABELS[number % 3]
    words = WORDS[label]
    color = tuple(min(255, channel + 3 * (number % 8)) for channel in COLORS[label])
    has_text = number % 7 != 6
    has_image = number % 5 != 4 or not has_text
    return {
        "id": f"e{number}",
        "group": f"g{number // 2}",
        "text": f"the {words[number % 2]} {'and ' * (number % 4)}{words[2]}" if has_text else None,
        "image": {"bytes": paint(color, 40 + number % 3), "path": None} if has_image else None,
        "target": label,
        "meta": json.dumps({"number": number}),
        "source": "made up",
    }


@pytest.fixture(scope="session")
def prepared(examples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder as the prepare stage leaves it, from two shards: 24 rows to train on, 9 to validate, 9 to test."""
    folder = tmp_path_factory.mktemp("prepared")
    numbers = pa.array([LABELS.index(target) for target in examples["target"].to_pylist()], pa.int64())
    table = examples.append_column("label", numbers)
    for split, (start, rows) in {"train": (0, 24), "val": (24, 9), "test": (33, 9)}.items():
        half = rows // 2
        write_table(table.slice(start, half), folder / split / "shard-00000-a.parquet")
        write_table(table.slice(start + half, rows - half), folder / split / "shard-00001-b.parquet")
    return folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a BERT of 16 dimensions with its WordPiece tokenizer, as save_pretrained leaves them."""
    folder = tmp_path_factory.mktemp("text-model")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, "the", "and", "##s", *(word for words in WORDS.values() for word in words), "[MASK]"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(7)
    shape = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, pad_token_id=0,
    )  # fmt: skip
    BertModel(shape, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoders(text_folder: Path) -> config.Encoders:
    """Give the tiny text model, a ResNet of four blocks on 32 px, and a network of two blocks for sound."""
    text = {"name": str(text_folder), "revision": digest_model(text_folder), "max_length": 12, "pooling": "mean",
            "freeze_embeddings": False}  # fmt: skip
    image = {"name": "resnet18", "weights": None, "size": 32, "blocks": [1, 1, 1, 1], "several": False}
    audio = {"rate": 8000, "max_seconds": 0.5, "mels": 16, "window_ms": 25.0, "hop_ms": 10.0, "widths": [6, 8]}
    return config.Encoders.model_validate({"text": text, "image": image, "audio": audio})


@pytest.fixture(scope="session")
def still_encoders(
    encoders: config.Encoders, text_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> config.Encoders:
    """Give the same encoders, the text model without dropout of its own."""
    folder = tmp_path_factory.mktemp("still") / "text-model"
    shutil.copytree(text_folder, folder)
    shape = json.loads((folder / "config.json").read_text())
    assert shape["hidden_dropout_prob"] == 0.1
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(shape))
    text = encoders.text.model_copy(update={"name": str(folder), "revision": digest_model(folder)})
    return encoders.model_copy(update={"text": text})


@pytest.fixture(scope="session")
def tokenizer(encoders: config.Encoders) -> Tokenizer:
    """Give the tiny text model's tokenizer, set to cut and to pad."""
    return load_tokenizer(encoders.text)


COMMON = {
    "dropout": 0.0, "optimizer": {"betas": [0.9, 0.999], "eps": 1e-8}, "weight_decay": 0.0, "max_grad_norm": 1.0,
    "epochs": 2, "batch_size": 8, "accumulation": 1, "warmup": 0.0, "schedule": "linear", "loss": "cross_entropy",
    "class_weights": None, "label_smoothing": 0.0, "patience": None, "augment": {},
    "warm_start": None, "soup": None,
}  # fmt: skip


@pytest.fixture(scope="session")
def expert() -> Callable[..., config.Expert]:
    """Give the writer of an expert's recipe; keywords replace keys."""

    def write(modality: str = "text", **changes: Any) -> config.Expert:
        rates = {"encoder": 1e-3, "head": 1e-2}
        return config.Expert.model_validate(
            COMMON | {"modality": modality, "tuning": "full", "learning_rate": rates} | changes
        )

    return write


@pytest.fixture(scope="session")
def fusion() -> Callable[..., config.Fusion]:
    """Give the writer of a fusion member's recipe; keywords replace keys."""

    def write(**changes: Any) -> config.Fusion:
        own = {
            "modalities": ["text", "image"], "fusion": "concat", "hidden": 12, "modality_dropout": 0.0, "start": {},
            "tuning": {"text": "full", "image": "full"}, "learning_rate": {"text": 1e-3, "image": 2e-3, "head": 1e-2},
            "layout": False,
        }  # fmt: skip
        return config.Fusion.model_validate(COMMON | own | changes)

    return write


@pytest.fixture(scope="session")
def build(encoders: config.Encoders, still_encoders: config.Encoders) -> Callable[..., FusionModel]:
    """Give the builder of a member from a recipe, in evaluation mode."""

    def make(
        recipe: config.Member, seed: int = 0, freeze_embeddings: bool = False, still: bool = False, side: int = 32
    ) -> FusionModel:
        text = (still_encoders if still else encoders).text.model_copy(update={"freeze_embeddings": freeze_embeddings})
        changed = encoders.model_copy(update={"text": text, "image": encoders.image.model_copy(update={"size": side})})
        return build_member(recipe, changed, Classification(LABELS), seed).eval()

    return make


@pytest.fixture(scope="session")
def modalities(encoders: config.Encoders) -> dict[str, Modality]:
    """Give text and image in training, as the tiny encoders take them."""
    return build_modalities(encoders, ["text", "image"])


@pytest.fixture(scope="session")
def readers(modalities: dict[str, Modality]) -> dict[str, Reader]:
    """Give the readers of texts and pictures."""
    return {name: modality.reader for name, modality in modalities.items()}


@pytest.fixture(scope="session")
def read(prepared: Path, modalities: dict[str, Modality]) -> Callable[..., Examples]:
    """Give the reader of a prepared split."""

    def examples(split: str = "train", **options: Any) -> Examples:
        return Examples(prepared / split, modalities, **options)

    return examples


@pytest.fixture
def batch(read: Callable[..., Examples], readers: dict[str, Reader]) -> dict[str, torch.Tensor]:
    """Give the first eight training rows as FusionModel's arguments, labels too; rows 4 and 6 lack a modality."""
    rows = read()
    return Collator(readers, len(LABELS))([rows[index] for index in range(8)])


def liven(model: FusionModel, seed: int) -> FusionModel:
    """Move every weight and buffer off its starting value, so that none can be left out unnoticed."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "preprocess" not in name:
                tensor.mul_(0.8 + 0.4 * torch.rand(tensor.shape, generator=random))
                if tensor.ndim == 1:  # biases, norms with their running numbers, and absences
                    tensor.add_(0.1 * torch.rand(tensor.shape, generator=random))
    return model


def combiner_of(weights: list[float], temperature: float = 1.0, pool: str = "geometric", **more: Any) -> Combiner:
    """Build a combiner of plain numbers."""
    return Combiner(torch.tensor(weights), torch.tensor(temperature), pool, **more)


def compare(folder: Path, ensemble: Ensemble, split: Path, evaluated_UC: Any, batch_sizes: list[int]) -> Agreement:
    """Hold a bundle against the ensemble on a prepared split."""
    return Reference.of(folder, ensemble, split, evaluated_UC).compare(folder, batch_sizes)[0]


@pytest.fixture(scope="session")
def ensemble(build: Callable[..., FusionModel], expert: Callable[..., Any], fusion: Callable[..., Any]) -> Ensemble:
    """Give two experts and a fusion member of each kind, untrained."""
    recipes = {
        "text": expert("text"), "image": expert("image"), "concat": fusion(), "gated": fusion(fusion="gated"),
    }  # fmt: skip
    members = {name: liven(build(recipe, seed), seed) for seed, (name, recipe) in enumerate(recipes.items())}
    return Ensemble(members, combiner_of([0.3, 0.3, 0.3, 0.1], 0.8)).eval()


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """Give a made-up evaluation, for the model card."""
    metrics = {name: Estimate(value=0.5, low=0.4, high=0.6) for name in ("accuracy", "macro_f1", "nll", "brier", "ece")}
    return Evaluation(
        labels=LABELS, rows=9, confidence=0.95, ensemble=metrics, members={"text": metrics}, before={},
        fine_tuning_gain={}, fusion_gain=metrics, best_single="text", patterns={}, per_class=[], confusion=[],
        weights={"text": 1.0}, temperature=1.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def export(readers: dict[str, Reader]) -> Callable[..., Path]:
    """Give the exporter: a folder and an ensemble to a bundle."""

    def write(folder: Path, ensemble: Ensemble) -> Path:
        contents = Contents(
            name="tiny", task=Classification(LABELS), members=ensemble.names, max_tokens=12, opset=20,
            data="0" * 64, card="# tiny\n",
        )  # fmt: skip
        write_bundle(folder, contents, ensemble, {name: readers[name] for name in ensemble.modalities})
        return folder

    return write


@pytest.fixture(scope="session")
def bundle(export: Callable[..., Path], ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the ensemble's bundle; copy it before changing anything in it."""
    return export(tmp_path_factory.mktemp("export") / "bundle", ensemble)


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Give questions in a mixed order: one modality or both, pictures of four sizes, texts of all lengths."""
    return [
        Row("the rose", paint(COLORS["red"], 40, 36)),
        Row(None, paint(COLORS["blue"], 17, 90)),
        Row("frog and leaf and lime and frog and leaf and lime and frog and leaf"),
        Row("sky", paint(COLORS["green"], 40, 36)),
        Row(None, paint(COLORS["red"], 32, 32)),
        Row("sea"),
        Row("unheard of", paint(COLORS["blue"], 3, 200)),
        Row(None, paint(COLORS["green"], 40, 36)),
    ]
