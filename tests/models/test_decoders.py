"""Decoders as text encoders: last token and mean, padded at either side, alone as in a batch, in torch as in ONNX."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from fuseline.models.ensemble import Ensemble
from fuseline.models.layout import Layout
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.training.checkpoints import load_member
from tests.conftest import combiner_of

SHAPE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 9, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 9, "n_positions": 32, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": SHAPE,
    "mistral": {**SHAPE, "sliding_window": None},
    "qwen2": SHAPE,
    "gpt_neo": {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "window_size": 4, "vocab_size": 9, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip
TOKENS = [[1, 2, 3, 4, 5, 6], [7], [8, 1, 4], [3, 3, 2, 1]]


def build(kind: str, pooling: str) -> FusionModel:
    torch.manual_seed(0)
    text = {"kind": "hugging-face-text", "architecture": {"model_type": kind, **SHAPES[kind]}, "pooling": pooling}
    model = FusionModel(FusionConfig(modalities=["text"], labels=["a", "b", "c"], encoders={"text": text})).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # positions of a fresh model are next to nothing
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=[(kind, pooling) for kind in SHAPES for pooling in ("last", "mean")],
                ids=lambda param: " ".join(param))  # fmt: skip
def member(request: pytest.FixtureRequest) -> FusionModel:
    return build(*request.param)


def padded(side: str, rows: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    ids = [row + rest if side == "right" else rest + row for row, rest in zip(rows, fill, strict=True)]
    mask = [[1] * len(row) + rest if side == "right" else rest + [1] * len(row)
            for row, rest in zip(rows, fill, strict=True)]  # fmt: skip
    return {
        "input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask),
        "has_text": torch.ones(len(rows), dtype=torch.bool),
    }  # fmt: skip


def logits(model: FusionModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch)["logits"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_alone_scores_as_in_a_batch(member: FusionModel, side: str) -> None:
    together = logits(member, padded(side, TOKENS))
    for row, tokens in enumerate(TOKENS):
        torch.testing.assert_close(logits(member, padded(side, [tokens]))[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", SHAPES)
def test_places_of_tokens_add_to_their_words(kind: str) -> None:
    plain, placed = (build(kind, "last").encoders["text"] for _ in range(2))
    placed.layout = Layout(16, placed.backbone.config.num_attention_heads)
    given = {name: tensor for name, tensor in padded("left", TOKENS).items() if name != "has_text"}
    boxes = torch.randint(0, 500, (*given["input_ids"].shape, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(placed(**given, boxes=boxes).vector_BD, plain(**given).vector_BD)
        placed.layout.weight.normal_(0, 30.0, generator=torch.Generator().manual_seed(0))
        assert (placed(**given, boxes=boxes).vector_BD - plain(**given).vector_BD).abs().amin(0).max() > 1e-4


@pytest.mark.parametrize("kind", SHAPES)
def test_relations_of_places_show_a_token_those_before_it_alone(kind: str) -> None:
    encoder = build(kind, "last").encoders["text"]
    encoder.layout = Layout(16, encoder.backbone.config.num_attention_heads)
    given = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    boxes = torch.tensor([[[0, 90 * row, 50, 90 * row + 20] for row in range(4)]])
    with torch.no_grad():
        before = encoder(**given, boxes=boxes).states_BTD
        encoder.layout.relations.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
        after = encoder(**given, boxes=boxes).states_BTD
        cut = encoder(**{name: tensor[:, :2] for name, tensor in given.items()}, boxes=boxes[:, :2]).states_BTD
    assert (after - before).abs().amax(2)[0, 1:].min() > 1e-4
    torch.testing.assert_close(cut, after[:, :2])


def test_the_order_of_words_counts(member: FusionModel) -> None:
    assert (
        logits(member, padded("right", [[1, 2, 3]])) - logits(member, padded("right", [[3, 2, 1]]))
    ).abs().max() > 1e-4


def test_a_text_without_tokens_gives_finite_scores_and_touches_no_other(member: FusionModel) -> None:
    batch = padded("right", TOKENS)
    batch["attention_mask"][1] = 0
    found = logits(member, batch)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0], logits(member, padded("right", TOKENS))[0], atol=1e-5, rtol=0)


def test_a_saved_decoder_answers_as_before(member: FusionModel, tmp_path: Path) -> None:
    member.save_pretrained(tmp_path)
    assert torch.equal(logits(load_member(tmp_path), padded("right", TOKENS)), logits(member, padded("right", TOKENS)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_graph_agrees_at_other_sizes_than_the_traced_one(kind: str) -> None:
    ensemble = Ensemble({"one": build(kind, "last")}, combiner_of([1.0])).eval()
    traced = padded("right", [[1, 2, 3, 4, 5, 6, 7], [1, 2]])
    shapes = {name: {0: "batch", 1: "tokens"} if tensor.ndim == 2 else {0: "batch"} for name, tensor in traced.items()}
    program = torch.onnx.export(
        ensemble, (), kwargs=traced, dynamo=True, dynamic_shapes={"inputs": shapes}, verbose=False, opset_version=20,
        input_names=list(traced), output_names=["probabilities", "logits", "members"],
    )  # fmt: skip
    graph = io.BytesIO()
    assert program is not None
    program.save(graph)
    session = ort.InferenceSession(graph.getvalue(), providers=["CPUExecutionProvider"])
    for side in ("right", "left"):
        for rows in ([[5]], TOKENS, TOKENS[:1]):
            batch = padded(side, rows)
            found = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})[0]
            with torch.no_grad():
                torch.testing.assert_close(torch.from_numpy(found), ensemble(**batch)[1], atol=1e-4, rtol=0)
