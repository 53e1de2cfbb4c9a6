"""Encoders: pooling by hand, and torchvision's families without their last layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torchvision.models import regnet

from fuseline.config import Encoders
from fuseline.errors import ModelError
from fuseline.models.encoders.image import ImageEncoder, build_resnet, build_torchvision, drop_classifier
from fuseline.models.encoders.text import TextEncoder, pool
from fuseline.training.modalities.image import IMAGENET_MEAN, IMAGENET_STD

STATES = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0], [9.0, 90.0]]])
MASKS = {
    "right": torch.tensor([[1, 1, 0, 0]]),
    "left": torch.tensor([[0, 0, 1, 1]]),
    "no": torch.tensor([[1, 1, 1, 1]]),
}


@pytest.mark.parametrize(
    ("pooling", "padding", "expected"),
    [
        ("mean", "right", 1.5), ("mean", "left", 7.5), ("mean", "no", 4.5),
        ("first", "right", 1.0), ("first", "left", 6.0), ("first", "no", 1.0),
        ("last", "right", 2.0), ("last", "left", 9.0), ("last", "no", 9.0),
    ],
)  # fmt: skip
def test_pooling_takes_its_tokens_whichever_side_is_padded(pooling: str, padding: str, expected: float) -> None:
    assert pool(STATES, MASKS[padding], pooling).tolist() == [[expected, 10 * expected]]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_text_without_tokens_pools_to_finite_numbers(pooling: str) -> None:
    assert torch.isfinite(pool(STATES, torch.zeros(1, 4, dtype=torch.long), pooling)).all()


TINY: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9,
    },
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 8, "vocab_size": 9},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 9},
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(TINY))
def test_encoders_and_decoders_give_one_vector_per_text(kind: str) -> None:
    encoder = TextEncoder({"model_type": kind, **TINY[kind]}, "last").eval()
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    assert encoder(ids, (ids > 0).long()).vector_BD.shape == (2, encoder.size) == (2, 16)


def test_no_pooling_layer_is_built_that_would_never_be_trained() -> None:
    encoder = TextEncoder({"model_type": "bert", **TINY["bert"]}, "mean")
    assert not [name for name, _ in encoder.named_parameters() if "pooler" in name]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_0", 1000), ("shufflenet_v2_x0_5", 1024),
        ("efficientnet_b0", 1280), ("mnasnet0_5", 1280),
    ],
)  # fmt: skip
def test_a_torchvision_family_gives_features_instead_of_imagenets_classes(name: str, size: int) -> None:
    encoder = ImageEncoder(name, 48, None, IMAGENET_MEAN, IMAGENET_STD).eval()
    assert encoder.size == size
    assert encoder(torch.zeros(2, 20, 30, 3, dtype=torch.uint8)).vector_BD.shape == (2, size)


def test_measuring_the_features_leaves_model_and_random_numbers_as_they_were() -> None:
    model = build_resnet("resnet18", [1, 1, 1, 1]).train()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    drop_classifier(model, 32)
    assert torch.equal(torch.rand(1), expected)
    assert model.training
    assert int(model.bn1.num_batches_tracked) == 0


def test_an_unknown_classifier_is_named() -> None:
    with pytest.raises(ModelError, match="no classifier 'resnet19'"):
        build_torchvision("resnet19", 32)


def test_blocks_for_something_else_than_a_resnet_are_refused() -> None:
    with pytest.raises(ModelError, match="fits resnet18 to resnet152, not 'vgg11'"):
        build_resnet("vgg11", [1, 1, 1, 1])


def test_the_blocks_of_the_config_reach_the_network(encoders: Encoders) -> None:
    image = encoders.image
    encoder = ImageEncoder(image.name, image.size, image.blocks, IMAGENET_MEAN, IMAGENET_STD)
    assert [len(getattr(encoder.backbone, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [1, 1, 1, 1]


@pytest.fixture
def off_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RegNet reckon its widths where there are numbers."""
    reckon = regnet.BlockParams.from_init_params

    def off(**options: Any) -> Any:
        with torch.device("cpu"):
            return reckon(**options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", off)


@pytest.mark.slow
@pytest.mark.usefixtures("off_meta")
def test_every_classifier_of_torchvision_builds_and_gives_features_of_its_size() -> None:
    names, seen = torchvision.models.list_models(module=torchvision.models), []
    for name in names:
        side = {"inception_v3": 80, "maxvit_t": 224, "vit_h_14": 70}.get(name, 64)
        with torch.device("meta"):  # the largest would take gigabytes, and minutes to draw their weights
            encoder = ImageEncoder(name, side, None, IMAGENET_MEAN, IMAGENET_STD).eval()
            found = encoder(pixels=torch.zeros(2, 20, 30, 3, dtype=torch.uint8))
        assert found.vector_BD.shape == (2, encoder.size), name
        assert found.states_BTD.shape == (2, found.mask_BT.shape[1], encoder.size), name
        seen.append(name)
    assert len(seen) == len(names) >= 80
