"""What can be trained can be exported: encoders × fusions × problems × ways to combine, in every variant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations as combinations_of
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import BertConfig, DistilBertConfig, GPT2Config, SwinConfig, ViTConfig, Wav2Vec2Config

from fuseline.export.graph import OUTPUTS, write_graph
from fuseline.export.variants import write_variant
from fuseline.inputs.base import Input
from fuseline.models.ensemble import Ensemble
from fuseline.models.fusion import FUSIONS
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.records import Variant
from tests.conftest import combiner_of, liven

CPU = ["CPUExecutionProvider"]
OPTIONS: dict[str, dict[str, Any]] = {
    "concat": {}, "gated": {}, "late": {}, "low-rank": {"rank": 2}, "cross-attention": {"heads": 2, "layers": 1},
    "mixture-of-experts": {"experts": 3, "chosen": 2, "balance": 0.1},
}  # fmt: skip
BLOCK = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SOUND = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
         "conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [5, 4], "num_conv_pos_embeddings": 8,
         "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "apply_spec_augment": False}  # fmt: skip
VIEW = {"side": 32, "mean": [0.5] * 3, "std": [0.25] * 3}


def architecture(config: Any) -> dict[str, Any]:
    return {**config.to_diff_dict(), "model_type": config.model_type}


def text(config: Any, pooling: str) -> dict[str, Any]:
    return {"kind": "hugging-face-text", "architecture": architecture(config), "pooling": pooling}


def picture(config: Any) -> dict[str, Any]:
    return {"kind": "hugging-face-image", "architecture": architecture(config), "preprocess": VIEW}


TEXTS = {
    "BERT": text(BertConfig(**BLOCK, vocab_size=40, max_position_embeddings=32), "mean"),
    "DistilBERT": text(
        DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=24, vocab_size=40, max_position_embeddings=32), "cls"
    ),
    "GPT-2": text(
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=32, bos_token_id=1, eos_token_id=2),
        "last",
    ),
}
PICTURES = {
    "ResNet": {"kind": "torchvision", "name": "resnet18", **VIEW, "blocks": [1, 1, 1, 1]},
    "ViT": picture(ViTConfig(**BLOCK, image_size=32, patch_size=8)),
    "Swin": picture(
        SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
}
SOUNDS = {
    "log-mel CNN": {
        "kind": "log-mel-cnn", "rate": 8000, "mels": 16, "window_ms": 25.0, "hop_ms": 10.0, "widths": [6, 8],
    },
    "wav2vec 2.0": {
        "kind": "hugging-face-audio", "architecture": architecture(Wav2Vec2Config(**SOUND)), "max_samples": 4000,
        "standardised": True, "spectrogram": None,
    },
}  # fmt: skip
UNITS = ("row", "label", "word")
POOLS = ("geometric", "arithmetic", "by pattern and stacked")
CASES = list(zip(UNITS, range(3), strict=True))


def combinations(unit: str, turn: int) -> Iterator[tuple[str, str, str, str, str | None]]:
    """Yield problem, fusion and encoders of one graph's members: over all graphs, each kind with each other."""
    texts, pictures, sounds = list(TEXTS), list(PICTURES), [*SOUNDS, None]
    for number, fusion in enumerate(OPTIONS):
        heard = sounds[(number + turn + number // 3 * turn) % 3]
        yield unit, fusion, texts[(number + turn) % 3], pictures[(number + 2 * turn) % 3], heard


def build(unit: str, turn: int) -> Ensemble:
    """Build a member of each fusion, and an expert whose encoder is that of the first member, as if frozen."""
    members: dict[str, FusionModel] = {}
    classes = 3 if unit != "label" else 4
    common: dict[str, Any] = {"labels": [str(number) for number in range(classes)], "unit": unit, "crf": unit == "word"}
    for seed, (_, fusion, *kinds) in enumerate(combinations(unit, turn)):
        made = zip(("text", "image", "audio"), (TEXTS, PICTURES, SOUNDS), kinds, strict=True)
        encoders = {name: kind[chosen] for name, kind, chosen in made if chosen is not None}
        torch.manual_seed(seed)
        members[fusion] = liven(
            FusionModel(
                FusionConfig(
                    modalities=list(encoders), encoders=encoders, fusion=fusion, hidden=8,
                    fusion_options=OPTIONS[fusion], **common,
                )
            ),
            seed,
        )  # fmt: skip
    first = members["concat"]
    own = FusionConfig(modalities=["text"], encoders={"text": first.config.encoders["text"]}, **common)
    members["text"] = liven(FusionModel(own), 20)
    members["text"].encoders["text"].load_state_dict(first.encoders["text"].state_dict())
    return Ensemble(members, combine(turn, len(members), 2 if unit == "label" else classes)).eval()


def combine(turn: int, members: int, classes: int) -> Any:
    random = torch.Generator().manual_seed(turn)
    weights = torch.rand(members, generator=random)
    weights = (weights / weights.sum()).tolist()
    if POOLS[turn] != "by pattern and stacked":
        return combiner_of(weights, 0.8, POOLS[turn])
    table = torch.rand(8, members, generator=random)
    stack = torch.randn(members, classes, classes, generator=random), torch.randn(classes, generator=random)
    return combiner_of(weights, 0.8, "geometric", by_pattern=table / table.sum(1, keepdim=True), stack=stack)


def draw(inputs: dict[str, Input], seed: int, **axes: int) -> dict[str, Any]:
    """Draw inputs of these sizes with padding and absences."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, axes["tokens"] + 1, axes["batch"])
    heard = random.integers(1, axes["samples"] + 1, axes["batch"])
    last = np.sort(random.integers(-1, lengths[:, None], (axes["batch"], axes["words"])), axis=1)
    last[:, 1:][random.random((axes["batch"], axes["words"] - 1)) < 0.2] = -2
    given = {
        "input_ids": random.integers(3, 40, (axes["batch"], axes["tokens"])),
        "attention_mask": (np.arange(axes["tokens"]) < lengths[:, None]).astype(np.int64),
        "pixels": random.integers(0, 256, (axes["batch"], axes["height"], axes["width"], 3), dtype=np.uint8),
        "waveform": random.standard_normal((axes["batch"], axes["samples"])).astype(np.float32) / 4,
        "waveform_lengths": heard,
        "words": last,
        **{f"has_{name}": random.random(axes["batch"]) < 0.7 for name in ("text", "image", "audio")},
    }
    given["has_text"][0] = True
    return {name: given[name] for name in inputs}


SHAPES = [
    {"batch": batch, "tokens": tokens, "height": height, "width": width, "samples": samples, "words": words}
    for batch, tokens, height, width, samples, words in (
        (1, 1, 1, 1, 400, 1), (1, 12, 32, 32, 4000, 3), (2, 3, 48, 20, 700, 2), (3, 24, 5, 300, 3999, 9),
        (5, 7, 200, 31, 1234, 4), (8, 9, 33, 32, 2000, 5), (17, 2, 64, 64, 500, 1), (4, 30, 10, 10, 900, 12),
    )
]  # fmt: skip
"""None is what the graph is traced at."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {POOLS[case[1]]}")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ensemble, Path]:
    ensemble = build(*request.param)
    folder = tmp_path_factory.mktemp("combination")
    write_graph(ensemble, 20, folder / "model.onnx")
    return ensemble, folder


def test_the_sweep_sees_every_kind_with_every_other() -> None:
    seen = [member for case in CASES for member in combinations(*case)]
    assert len(seen) == 18
    assert OPTIONS.keys() == FUSIONS.keys()
    kinds = (UNITS, list(OPTIONS), list(TEXTS), list(PICTURES), [*SOUNDS, None])
    for one, other in combinations_of(range(5), 2):
        assert {(member[one], member[other]) for member in seen} == set(product(kinds[one], kinds[other]))


def ask(path: Path, feeds: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    return ort.InferenceSession(str(path), providers=CPU).run(list(OUTPUTS), feeds)  # type: ignore[no-any-return]


def expect(ensemble: Ensemble, feeds: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    with torch.inference_mode():
        return [each.numpy() for each in ensemble(**{name: torch.from_numpy(value) for name, value in feeds.items()})]


def as_variant(variant: Variant, plain: Path, folder: Path) -> Path:
    """Write the graph at `plain` in another way, unless it is what is asked for; return where that one is."""
    if variant == "fp32":
        return plain
    write_variant(variant, plain, folder / "model.onnx", {}, lambda: iter(()))
    return folder / "model.onnx"


def test_the_graph_answers_as_torch_at_shapes_it_was_not_traced_at(exported: tuple[Ensemble, Path]) -> None:
    ensemble, folder = exported
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=CPU)
    assert {one.name: one.type for one in session.get_inputs()}.keys() == ensemble.inputs.keys()
    assert [one.name for one in session.get_outputs()] == list(OUTPUTS)
    for seed, shape in enumerate(SHAPES):
        feeds = draw(ensemble.inputs, seed, **shape)
        found, expected = session.run(list(OUTPUTS), feeds), expect(ensemble, feeds)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, np.abs(other).max()), rtol=0)
        np.testing.assert_array_equal(found[0].argmax(-1), expected[0].argmax(-1))


@pytest.mark.parametrize(("variant", "off"), [("fused", 1e-5), ("fp16", 5e-3), ("int8", 0.3)])
def test_the_graph_can_be_written_as(variant: Any, off: float, exported: tuple[Ensemble, Path], tmp_path: Path) -> None:
    ensemble, folder = exported
    rows = (draw(ensemble.inputs, 50 + seed, **SHAPES[4]) for seed in range(4))
    assert write_variant(variant, folder / "model.onnx", tmp_path / "model.onnx", {}, lambda: rows)
    feeds = draw(ensemble.inputs, 9, **SHAPES[4])
    assert np.abs(ask(tmp_path / "model.onnx", feeds)[0] - expect(ensemble, feeds)[0]).max() < off
