"""What a recipe tunes has a gradient; what it leaves stays, norms and dropout too; adapters leave no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fuseline.config import Encoders, Member
from fuseline.errors import ModelError
from fuseline.models.encoders.image import ImageEncoder
from fuseline.models.encoders.text import TextEncoder
from fuseline.models.member import FusionModel
from fuseline.training.checkpoints import load_member
from fuseline.training.trainer import build_optimizer, rates_by_name
from fuseline.training.tuning import merge, tune

Build = Callable[..., FusionModel]
Batch = dict[str, Tensor]
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "all"}
RATES = {"text": 1e-3, "image": 2e-3, "head": 1e-2}


def recipe_of(fusion: Callable[..., Any], text: Any, image: Any) -> Member:
    rates = {"text": None if text == "frozen" else 1e-3, "image": None if image == "frozen" else 2e-3, "head": 1e-2}
    recipe: Member = fusion(tuning={"text": text, "image": image}, learning_rate=rates)
    return recipe


def trained(model: FusionModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def reached(model: FusionModel, batch: Batch) -> set[str]:
    model.train()(**batch)["loss"].backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


EXPECTED: dict[str, tuple[Any, Callable[[str], bool]]] = {
    "full": ("full", lambda name: True),
    "frozen": ("frozen", lambda name: False),
    "bitfit": ("bitfit", lambda name: name.endswith(".bias")),
    "lora": (LORA, lambda name: "lora_" in name),
}


@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_just_what_is_tuned_is_trained_and_has_a_gradient(
    kind: str, modality: str, build: Build, fusion: Callable[..., Any], batch: Batch
) -> None:
    tuning, chosen = EXPECTED[kind]
    recipe = recipe_of(fusion, **{"text": "full", "image": "full"} | {modality: tuning})
    model = build(recipe)
    tune(model, recipe)
    expected = {
        name for name, _ in model.named_parameters() if not name.startswith(f"encoders.{modality}.") or chosen(name)
    }
    assert trained(model) == expected == reached(model, batch)
    optimizer = build_optimizer(model, recipe)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(expected)


def test_the_last_layers_alone_are_trained(build: Build, fusion: Callable[..., Any], batch: Batch) -> None:
    recipe = recipe_of(fusion, "full", {"layers": 2})
    model = build(recipe)
    tune(model, recipe)
    image = {name for name in trained(model) if name.startswith("encoders.image.")}
    assert {name.split(".")[3] for name in image} == {"layer3", "layer4"}
    assert image == {name for name in reached(model, batch) if name.startswith("encoders.image.")}


def test_norms_and_dropout_of_what_is_frozen_stay_as_in_evaluation(
    build: Build, fusion: Callable[..., Any], batch: Batch
) -> None:
    recipe = recipe_of(fusion, "frozen", {"layers": 1})
    model = build(recipe)
    tune(model, recipe)
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    model.train()(**batch)
    assert not any(module.training for module in model.encoders["text"].modules())
    network = model.encoders["image"].backbone
    assert not network.layer3.training
    assert network.layer4.training
    moved = {
        name for name, buffer in model.named_buffers() if "running" in name and not torch.equal(before[name], buffer)
    }
    assert moved == {name for name in before if ".layer4." in name}


def test_a_single_picture_in_a_batch_wakes_nothing_that_is_frozen(
    build: Build, fusion: Callable[..., Any], batch: Batch
) -> None:
    recipe = recipe_of(fusion, "full", {"layers": 1})
    model = build(recipe)
    tune(model, recipe)
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    model(**batch | {"has_image": torch.tensor([True] + [False] * 7)})
    assert {name: module.training for name, module in model.named_modules()} == modes


@pytest.mark.parametrize("modality", ["text", "image"])
def test_merged_adapters_answer_as_before_and_are_an_ordinary_checkpoint(
    modality: str, build: Build, expert: Callable[..., Any], batch: Batch, tmp_path: Path
) -> None:
    recipe = expert(modality, tuning=LORA)
    model, plain = build(recipe), build(expert(modality))
    adapters = tune(model, recipe)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3 if modality == "text" else 0.1)
    with torch.no_grad():
        apart = model.eval()(**batch)["logits"]
        merge(adapters)
        assert model.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(model(**batch)["logits"], apart, atol=1e-5, rtol=0)
        assert not torch.allclose(plain(**batch)["logits"], apart, atol=1e-3)
        for folder, member in {"merged": model, "plain": plain}.items():
            member.save_pretrained(tmp_path / folder)
        assert torch.equal(load_member(tmp_path / "merged")(**batch)["logits"], model(**batch)["logits"])
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in ("merged", "plain")]
    assert sizes[0] == sizes[1]
    assert [path.name for path in sorted((tmp_path / "merged").iterdir())] == ["config.json", "model.safetensors"]


def test_adapters_of_attention_stand_beside_query_and_value(build: Build, expert: Callable[..., Any]) -> None:
    recipe = expert("text", tuning=LORA | {"targets": "attention"})
    model = build(recipe)
    tune(model, recipe)
    beside = {name.split(".lora_")[0].split(".")[-1] for name in trained(model) if "lora_" in name}
    assert beside == {"query", "value"}


def test_adapters_reach_every_layer_of_a_decoder_too() -> None:
    encoder = TextEncoder({"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 9}, "last")
    model, recipe = Shell("text", encoder), Shape({"text": LORA})
    adapters = tune(model, recipe)  # type: ignore[arg-type]
    encoder.train()(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)).vector_BD.sum().backward()
    layers = {
        name.split(".lora_")[0] for name, p in encoder.named_parameters() if p.requires_grad and p.grad is not None
    }
    assert {name.rpartition("h.0.")[2] for name in layers} == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    merge(adapters)


@pytest.mark.parametrize("name", ["vit_b_32", "mobilenet_v3_small", "convnext_tiny"])
def test_adapters_of_a_picture_network_all_have_gradients(name: str) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(name, 64, None, [0.5] * 3, [0.5] * 3)
    before = encoder.state_dict().keys()
    model, recipe = Shell("image", encoder), Shape({"image": LORA})
    adapters = tune(model, recipe)  # type: ignore[arg-type]
    encoder.train()(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)).vector_BD.square().sum().backward()
    chosen = {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(chosen) > 20
    assert [name for name, gradient in chosen.items() if gradient is None] == []
    merge(adapters)
    assert encoder.state_dict().keys() == before


class Shell(nn.Module):
    """An encoder where a member has it."""

    def __init__(self, modality: str, encoder: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({modality: encoder})


class Shape:
    """As much of a recipe as tuning reads."""

    def __init__(self, tunings: dict[str, Any]) -> None:
        from fuseline.config import Lora

        self.tunings = {name: Lora.model_validate(tuning) for name, tuning in tunings.items()}


@pytest.mark.parametrize(
    ("modality", "tuning", "words"),
    [
        ("image", LORA | {"targets": "attention"}, "PEFT names no attention layers of ResNet; set targets to all"),
        ("image", {"layers": 9}, "layers is 9, the encoder has 6; lower it"),
        ("text", {"layers": 5}, "layers is 5, the encoder has 1; lower it"),
    ],
)
def test_what_an_encoder_does_not_have_cannot_be_tuned(
    modality: str, tuning: Any, words: str, build: Build, expert: Callable[..., Any]
) -> None:
    recipe = expert(modality, tuning=tuning)
    with pytest.raises(ModelError, match=f"tuning of {modality}: .*{words}"):
        tune(build(recipe), recipe)


def test_a_rate_with_decay_falls_from_the_last_layer_to_the_stem(build: Build, expert: Callable[..., Any]) -> None:
    recipe = expert("image", learning_rate={"encoder": {"top": 0.1, "decay": 0.5}, "head": 1e-2})
    model = build(recipe)
    rates = {name.split(".")[3]: rate for name, rate in rates_by_name(model, recipe).items()}
    expected = {"layer4": 0.1, "layer3": 0.05, "layer2": 0.025, "layer1": 0.0125, "bn1": 0.00625, "conv1": 0.003125}
    assert rates == pytest.approx(expected)
    groups = {round(group["lr"], 8) for group in build_optimizer(model, recipe).param_groups}
    assert groups == {*expected.values(), 1e-2}


def test_a_rate_with_decay_counts_the_embeddings_as_a_layer(
    build: Build, fusion: Callable[..., Any], encoders: Encoders
) -> None:
    recipe = fusion(learning_rate=RATES | {"text": {"top": 0.1, "decay": 0.5}})
    rates = rates_by_name(build(recipe), recipe)
    text = {name: rate for name, rate in rates.items() if name.startswith("encoders.text.")}
    assert {rate for name, rate in text.items() if ".embeddings." in name} == {0.05}
    assert {rate for name, rate in text.items() if ".encoder.layer." in name} == {0.1}
    assert {rate for name, rate in rates.items() if name.startswith("encoders.image.")} == {2e-3}


def test_adapters_learn_at_the_rate_of_their_layer(build: Build, expert: Callable[..., Any]) -> None:
    recipe = expert("image", tuning=LORA, learning_rate={"encoder": {"top": 0.1, "decay": 0.5}, "head": 1e-2})
    model = build(recipe)
    tune(model, recipe)
    found = {name.split(".")[3]: rate for name, rate in rates_by_name(model, recipe).items() if "lora_" in name}
    assert found == pytest.approx({"layer4": 0.1, "layer3": 0.05, "layer2": 0.025, "layer1": 0.0125, "conv1": 0.003125})


def test_tuning_fully_changes_no_weight_and_draws_no_number(build: Build, fusion: Callable[..., Any]) -> None:
    model = build(fusion())
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert tune(model, fusion()) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
