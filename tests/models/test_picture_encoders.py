"""Rows with several pictures, as encoders, members and the graph see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import ViTConfig

from fuseline import config
from fuseline.export.graph import write_graph
from fuseline.models.encoders.base import Encoded
from fuseline.models.encoders.image import ImageEncoder, ImageTransformer, PictureEncoder
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.tasks.classification import Classification
from fuseline.training.pretrained import build_member
from tests.conftest import LABELS, combiner_of, liven
from tests.export.test_bundle import CPU, draw

VIEW: dict[str, Any] = {"side": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
VIT = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=32,
                patch_size=8)  # fmt: skip
KINDS = ["ResNet", "ViT", "without parts"]


def make(kind: str) -> PictureEncoder:
    torch.manual_seed(3)
    if kind == "ViT":
        return ImageTransformer({**VIT.to_diff_dict(), "model_type": "vit"}, VIEW, several=True)
    name, blocks = ("resnet18", [1, 1, 1, 1]) if kind == "ResNet" else ("shufflenet_v2_x0_5", None)
    return ImageEncoder(name, 32, blocks, VIEW["mean"], VIEW["std"], several=True)


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> PictureEncoder:
    return make(request.param).eval()


def paint(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8))


def encode(encoder: PictureEncoder, pixels: Tensor, counts: list[int]) -> Encoded:
    with torch.no_grad():
        found: Encoded = encoder(pixels, torch.tensor(counts))
    return found


def test_a_row_with_one_picture_gives_what_the_picture_gives(encoder: PictureEncoder) -> None:
    pixels = paint(3, 32, 32)
    with torch.no_grad():
        expected = encoder(pixels)
    found = encode(encoder, pixels[:, None], [1, 1, 1])
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=8)
def test_order_padding_and_other_rows_do_not_count(counts: list[int], random: Any) -> None:
    encoder, most = make("ResNet").eval(), max(1, *counts)
    pixels = paint(len(counts), most, 32, 32)
    found = encode(encoder, pixels, counts)
    with torch.no_grad():
        alone = [encoder(row[:count]) if count else None for row, count in zip(pixels, counts, strict=True)]
    shuffled = paint(len(counts), most + 1, 32, 32, seed=9)
    for row, count in enumerate(counts):
        order = list(range(count))
        random.shuffle(order)
        shuffled[row, :count] = pixels[row, order]
    again = encode(encoder, shuffled, counts)
    torch.testing.assert_close(again.vector_BD, found.vector_BD, atol=1e-5, rtol=1e-4)
    for row, one in enumerate(alone):
        assert int(found.mask_BT[row].sum()) == (0 if one is None else one.mask_BT.numel())
        expected = torch.zeros(encoder.size) if one is None else one.vector_BD.mean(0)
        torch.testing.assert_close(found.vector_BD[row], expected, atol=1e-5, rtol=1e-4)
        if one is not None:
            there = found.states_BTD[row][found.mask_BT[row]]
            torch.testing.assert_close(there, one.states_BTD.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_in_training_padding_stays_out_of_batch_norm() -> None:
    encoder, other = make("ResNet").train(), make("ResNet").train()
    pixels, counts = paint(3, 3, 32, 32), torch.tensor([1, 3, 2])
    there = torch.arange(3) < counts[:, None]
    found, expected = encoder(pixels, counts), other(pixels[there])
    for name, tensor in other.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name
    torch.testing.assert_close(found.vector_BD[1], expected.vector_BD[1:4].mean(0))
    found.vector_BD.sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())


# --- members and the graph ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joined(
    encoders: config.Encoders, expert: Callable[..., config.Expert], fusion: Callable[..., config.Fusion]
) -> Ensemble:
    """Give experts and fusion members for rows with several pictures; side 64 makes pictures of several parts."""
    image = encoders.image.model_copy(update={"several": True, "size": 64})
    several = encoders.model_copy(update={"image": image})
    kinds = ["gated", "late", {"heads": 2, "layers": 1}]
    recipes = [expert("image"), expert("text"), *(fusion(fusion=kind) for kind in kinds)]
    members = {
        str(seed): liven(build_member(recipe, several, Classification(LABELS), seed), seed)
        for seed, recipe in enumerate(recipes)
    }
    return Ensemble(members, combiner_of([0.2] * 5, 0.8)).eval()


@pytest.fixture(scope="module")
def vit() -> Ensemble:
    architecture = {**VIT.to_diff_dict(), "model_type": "vit"}
    encoder = {"kind": "hugging-face-image", "architecture": architecture, "preprocess": VIEW, "several": True}
    member = liven(FusionModel(FusionConfig(modalities=["image"], labels=LABELS, encoders={"image": encoder})), 1)
    return Ensemble({"image": member}, combiner_of([1.0])).eval()


@pytest.fixture(scope="module")
def session(joined: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    return export(joined, tmp_path_factory.mktemp("several"))


def export(ensemble: Ensemble, folder: Path) -> ort.InferenceSession:
    write_graph(ensemble, 20, folder / "model.onnx")
    return ort.InferenceSession(str(folder / "model.onnx"), providers=CPU)


def draw_several(batch: int, most: int, height: int, width: int) -> dict[str, np.ndarray[Any, Any]]:
    """Draw inputs of rows with none to `most` pictures, as texts and pictures are there in turn."""
    feeds, random = draw(batch, 6, height, width), np.random.default_rng(batch + most)
    counts = np.where(feeds["has_image"], random.integers(1, most + 1, batch), 0)
    pixels = random.integers(0, 256, (batch, most, height, width, 3), dtype=np.uint8)
    return feeds | {"pixels": pixels, "picture_counts": counts}


def run(ensemble: Ensemble, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        return [one.numpy() for one in ensemble(**{name: torch.from_numpy(array) for name, array in feeds.items()})]


SIZES = [(1, 1, 1, 1), (1, 4, 30, 40), (2, 3, 48, 40), (7, 2, 64, 64), (9, 5, 33, 20)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_graph_agrees_with_torch(
    sizes: tuple[int, int, int, int], session: ort.InferenceSession, joined: Ensemble
) -> None:
    feeds = draw_several(*sizes)
    for found, expected in zip(
        session.run(["probabilities", "logits", "members"], feeds), run(joined, feeds), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[4]], ids=str)
def test_the_graph_of_a_transformer_agrees_with_torch(
    sizes: tuple[int, int, int, int], vit: Ensemble, tmp_path: Path
) -> None:
    feeds = {name: array for name, array in draw_several(*sizes).items() if name in ("pixels", "picture_counts")}
    feeds["has_image"] = feeds["picture_counts"] > 0
    (found,) = export(vit, tmp_path).run(["logits"], feeds)
    np.testing.assert_allclose(found, run(vit, feeds)[1], atol=1e-4)


def test_a_member_sees_each_picture_and_no_padding(joined: Ensemble) -> None:
    feeds = draw_several(6, 3, 64, 64)
    feeds["picture_counts"] = np.where(feeds["has_image"], 2, 0)
    before = run(joined, feeds)[2]
    for place, seen in enumerate([True, True, False]):
        other = feeds["pixels"].copy()
        other[:, place] = 255 - other[:, place]
        changed = np.abs(run(joined, feeds | {"pixels": other})[2] - before).max(2) > 1e-6
        expected = np.zeros_like(changed)
        expected[:, [0, 2, 3, 4]] = (seen & feeds["has_image"])[:, None]  # all but the text's expert
        np.testing.assert_array_equal(
            changed[feeds["has_image"] | feeds["has_text"]], expected[feeds["has_image"] | feeds["has_text"]]
        )


def test_a_row_with_one_picture_is_answered_as_by_members_for_one(joined: Ensemble) -> None:
    feeds = draw_several(6, 1, 40, 30)
    plain = {name: array for name, array in feeds.items() if name != "picture_counts"}
    expected = run(joined, plain | {"pixels": feeds["pixels"][:, 0]})
    (*answers, members), (*plain_answers, plain_members) = run(joined, feeds), expected
    for found, one in zip(answers, plain_answers, strict=True):
        np.testing.assert_array_equal(found, one)
    shown = feeds["has_image"]  # without a picture, the pictures' expert has no say
    np.testing.assert_array_equal(members[shown], plain_members[shown])
