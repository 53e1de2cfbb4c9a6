"""What places of tokens add: nothing at first, nothing without the picture, and the same in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from fuseline.config import Expert, Fusion
from fuseline.models.encoders.text import TextEncoder
from fuseline.models.ensemble import Ensemble
from fuseline.models.layout import GAIN, GAPS, HIDDEN, RELATIONS, Layout, find_edges, relate_boxes
from fuseline.models.member import FusionModel
from fuseline.training.checkpoints import load_member, take_encoders
from fuseline.training.trainer import build_optimizer
from fuseline.training.tuning import tune
from tests.conftest import combiner_of, liven

Build = Callable[..., FusionModel]
Batch = dict[str, Tensor]
KINDS = {"gated": "gated", "cross-attention": {"heads": 2, "layers": 1}}


@pytest.fixture
def placed(batch: Batch) -> Batch:
    """The batch, with boxes of all tokens but each row's first."""
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 500, (*batch["input_ids"].shape, 2), generator=random)
    boxes = torch.cat([corners, corners + torch.randint(0, 500, corners.shape, generator=random)], dim=2)
    boxes[:, 0] = -1
    return {name: tensor for name, tensor in batch.items() if name != "labels"} | {"boxes": boxes}


def wake(model: FusionModel, seed: int = 0) -> FusionModel:
    """Move every weight off its starting value, those of places too, which are zeros."""
    liven(model, seed)
    layout = model.encoders["text"].layout
    if layout is not None:
        random = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(layout.weight, 0, 30.0, generator=random)  # type: ignore[arg-type, union-attr]
        torch.nn.init.normal_(layout.relations, 0, 0.2, generator=random)  # type: ignore[arg-type, union-attr]
    return model


def logits(model: FusionModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch)["logits"]


@pytest.mark.parametrize("training", [False, True], ids=["in evaluation", "in training"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_member_begins_as_without_layout_to_the_last_bit(
    kind: str, training: bool, build: Build, fusion: Callable[..., Fusion], placed: Batch
) -> None:
    found = []
    for layout in (False, True):
        model = build(fusion(fusion=KINDS[kind], layout=layout, modality_dropout=0.3)).train(training)
        torch.manual_seed(1)
        found.append(logits(model, placed))
    assert torch.equal(*found)


@pytest.mark.parametrize("training", [False, True], ids=["in evaluation", "in training"])
def test_places_count_where_there_is_a_picture(
    training: bool, build: Build, fusion: Callable[..., Fusion], placed: Batch
) -> None:
    model = wake(build(fusion(layout=True), still=True)).train(training)
    moved = placed | {"boxes": torch.where(placed["boxes"] < 0, placed["boxes"], 1000 - placed["boxes"])}
    with_norms_at_rest(model)
    changed = (logits(model, placed) - logits(model, moved)).abs().amax(1) > 1e-6
    assert torch.equal(changed, placed["has_image"] & placed["has_text"])


def with_norms_at_rest(model: FusionModel) -> None:
    """Keep rows apart: a batch norm would let each see the others."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def test_a_token_without_a_box_gets_nothing() -> None:
    layout = Layout(3, 1)
    torch.nn.init.ones_(layout.bias)
    torch.nn.init.ones_(layout.relations)  # type: ignore[arg-type]
    boxes, mask = torch.tensor([[[-1, -1, -1, -1], [0, 0, 1000, 1000], [0, 0, 9, 9]]]), torch.ones(1, 3)
    assert layout(boxes)[:, :2].tolist() == [[[0.0] * 3, [1.0] * 3]]
    assert layout.scores(boxes, mask, False).tolist() == [[[[0.0] * 3, [0.0, GAIN, GAIN], [0.0, GAIN, GAIN]]]]


@pytest.mark.parametrize(
    ("causal", "expected"),
    [(False, [[0.0, 0.0, HIDDEN]] * 3), (True, [[0.0, HIDDEN, HIDDEN], [0.0, 0.0, HIDDEN], [0.0, 0.0, HIDDEN]])],
    ids=["around it", "before it"],
)
def test_a_token_looks_at_those_that_are_there(causal: bool, expected: list[list[float]]) -> None:
    boxes, mask = torch.full((1, 3, 4), 5), torch.tensor([[1, 1, 0]])
    assert Layout(3, 2).scores(boxes, mask, causal).tolist() == [[expected, expected]]


@pytest.mark.parametrize(
    ("other", "row", "gap"),
    [
        pytest.param((100, 100, 150, 120), 5, 5, id="where it stands itself"),
        pytest.param((170, 100, 190, 120), 5, 6, id="beside it, one height to the right"),
        pytest.param((169, 100, 190, 120), 5, 5, id="beside it, less than a height to the right"),
        pytest.param((10, 95, 79, 115), 5, 4, id="beside it, more than one height to the left"),
        pytest.param((100, 110, 150, 130), 6, 5, id="half a height below"),
        pytest.param((800, 900, 990, 920), 10, 10, id="far below and far to the right"),
        pytest.param((0, 0, 20, 5), 1, 3, id="above it, by its own height and not the other's"),
    ],
)
def test_a_relation_is_counted_in_heights(other: tuple[int, ...], row: int, gap: int) -> None:
    boxes = torch.tensor([[(100, 100, 150, 120), other]])
    relations = relate_boxes(boxes)
    assert divmod(int(relations[0, 0, 1]), len(GAPS) + 1) == (row, gap)
    assert 0 <= int(relations.min()) <= int(relations.max()) < RELATIONS


def test_what_relations_mean_is_the_same_on_a_longer_page() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 250, (1, 20, 2), generator=random)
    boxes = torch.cat([corners, corners + torch.randint(1, 250, corners.shape, generator=random)], dim=2)
    assert torch.equal(relate_boxes(boxes), relate_boxes(2 * boxes))


def test_a_box_begins_and_ends_with_its_own_tokens() -> None:
    one, other, nowhere = (0, 0, 5, 5), (6, 0, 9, 5), (-1, -1, -1, -1)
    edges = find_edges(torch.tensor([[nowhere, one, one, one, other, nowhere]]))[0, 1:5]
    assert edges.tolist() == [[True, False], [False, False], [False, True], [True, True]]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        pytest.param({"model_type": "bert"}, True, id="bert"),
        pytest.param({"model_type": "electra", "embedding_size": 4}, True, id="electra, whose embeddings are narrower"),
        pytest.param({"model_type": "gpt2", "n_positions": 8}, True, id="gpt2"),
        pytest.param({"model_type": "deberta-v2"}, False, id="deberta, whose attention is its own"),
        pytest.param({"model_type": "modernbert"}, False, id="modernbert, some of whose layers have a window"),
    ],
)  # fmt: skip
def test_relations_are_learned_where_attention_takes_them(architecture: dict[str, Any], expected: bool) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8}
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "cls_token_id": 0, "sep_token_id": 0}
    encoder = TextEncoder({"vocab_size": 9} | sizes | special | architecture, "mean", layout=True).eval()
    plain = TextEncoder(encoder.backbone.config.to_dict(), "mean").eval()
    plain.load_state_dict({name: each for name, each in encoder.state_dict().items() if name.startswith("backbone.")})
    layout = encoder.layout
    assert layout is not None
    assert (layout.relations is not None) is expected
    inputs = {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    boxes = torch.tensor([[[0, 0, 9, 9], [0, 20, 9, 29], [500, 20, 509, 29]]] * 2)
    with torch.no_grad():
        torch.testing.assert_close(encoder(**inputs, boxes=boxes).vector_BD, plain(**inputs).vector_BD)
        if layout.relations is not None:
            torch.nn.init.normal_(layout.relations, generator=torch.Generator().manual_seed(0))
            changed = encoder(**inputs, boxes=boxes).vector_BD - plain(**inputs).vector_BD
            assert (changed.abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize(
    "tuning", ["full", "frozen", {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "attention"}], ids=str
)
def test_places_are_learned_at_the_heads_rate_whatever_else_is(
    tuning: Any, build: Build, fusion: Callable[..., Fusion], placed: Batch
) -> None:
    rate = None if tuning == "frozen" else 1e-3
    recipe = fusion(
        layout=True, tuning={"text": tuning, "image": "full"},
        learning_rate={"text": rate, "image": 2e-3, "head": 1e-2},
    )  # fmt: skip
    model = build(recipe)
    tune(model, recipe)
    optimizer = build_optimizer(model, recipe)
    own = {id(parameter) for parameter in model.encoders["text"].layout.parameters()}  # type: ignore[union-attr]
    rates = {group["lr"] for group in optimizer.param_groups for each in group["params"] if id(each) in own}
    assert (len(own), rates) == (3, {1e-2})
    model.train()(**placed)["logits"].sum().backward()
    assert all(each.grad.abs().max() > 0 for each in model.encoders["text"].layout.parameters())  # type: ignore[union-attr]


def test_a_member_starts_from_an_expert_that_knows_no_places(
    build: Build, expert: Callable[..., Expert], fusion: Callable[..., Fusion], tmp_path: Path
) -> None:
    text = liven(build(expert("text")), 3)
    text.save_pretrained(tmp_path / "text")
    model = build(fusion(layout=True))
    take_encoders(model, {"text": "text"}, tmp_path)
    state, theirs = model.encoders["text"].state_dict(), text.encoders["text"].state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.items())
    assert state.keys() - theirs.keys() == {"layout.weight", "layout.bias", "layout.relations"}


def test_a_saved_member_answers_as_before(
    build: Build, fusion: Callable[..., Fusion], placed: Batch, tmp_path: Path
) -> None:
    model = wake(build(fusion(layout=True)))
    model.save_pretrained(tmp_path)
    assert load_member(tmp_path).config.layout
    assert torch.equal(logits(load_member(tmp_path), placed), logits(model, placed))


@pytest.fixture(scope="module")
def joined(build: Build, expert: Callable[..., Any], fusion: Callable[..., Any]) -> Ensemble:
    recipes = [expert("text"), *(fusion(fusion=kind, layout=True) for kind in KINDS.values()), fusion()]
    members = {str(seed): wake(build(recipe, seed, side=64), seed) for seed, recipe in enumerate(recipes)}
    return Ensemble(members, combiner_of([0.25] * 4, 0.8)).eval()


def test_the_graph_places_tokens_as_torch_does(joined: Ensemble, export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(tmp_path / "bundle", joined)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for rows, tokens in [(1, 1), (2, 7), (5, 12)]:
        corners = random.integers(0, 500, (rows, tokens, 2))
        boxes = np.concatenate([corners, corners + random.integers(0, 500, corners.shape)], axis=2)
        boxes[random.random((rows, tokens)) < 0.3] = -1
        feeds = {
            "input_ids": random.integers(2, 9, (rows, tokens)), "boxes": boxes,
            "attention_mask": np.ones((rows, tokens), dtype=np.int64), "has_text": np.ones(rows, dtype=np.bool_),
            "pixels": random.integers(0, 256, (rows, 30, 40, 3), dtype=np.uint8),
            "has_image": np.arange(rows) % 2 == 0,
        }  # fmt: skip
        with torch.no_grad():
            expected = joined(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        for found, tensor in zip(session.run(["probabilities", "logits", "members"], feeds), expected, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), atol=1e-4)


def test_members_with_layout_run_their_encoders_themselves(build: Build, fusion: Callable[..., Any]) -> None:
    for layout in (False, True):
        members = {name: build(fusion(layout=layout)) for name in "ab"}
        owners = Ensemble(members, combiner_of([0.5, 0.5])).owners
        assert owners[1] == [(1 if layout else 0, "text"), (0, "image")]


def test_rows_that_are_asked_about_again_without_their_picture_lose_their_places(
    joined: Ensemble, placed: Batch
) -> None:
    blind = placed | {"has_image": torch.zeros_like(placed["has_image"])}
    with torch.no_grad():
        again, expected = joined(encoded=joined.encode(**placed), **blind), joined(**blind)
        assert not torch.allclose(joined(**placed)[1], expected[1], atol=1e-3)
    for found, tensor in zip(again, expected, strict=True):
        torch.testing.assert_close(found, tensor)
