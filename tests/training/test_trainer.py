"""Training learns, repeats itself, keeps the best epoch, and moves what it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.config import Expert, Fusion, Member, Train
from fuseline.errors import ConfigError
from fuseline.inputs.base import Reader
from fuseline.models.member import FusionModel
from fuseline.records import Epoch
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import predict_log_probs
from fuseline.training.trainer import build_arguments, build_optimizer, fit, set_up
from fuseline.training.tuning import tune

Recipe = Callable[..., Any]
Build = Callable[..., FusionModel]
COMMON = Train(seed=0, threads=1, precision="fp32", device="cpu")


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def train(build: Build, read: Callable[..., Examples], readers: dict[str, Reader]) -> Callable[..., Any]:
    """Give the trainer of a new member on the tiny examples."""

    def run(recipe: Member, seed: int = 0, val: str = "val", **options: Any) -> tuple[FusionModel, list[Epoch]]:
        model = build(recipe, **options)
        tune(model, recipe)
        splits = (read(split, only=recipe.modalities) for split in ("train", val))
        common = COMMON.model_copy(update={"seed": seed})
        changed, plain = Collator(readers, 3, recipe.label_smoothing), Collator(readers, 3)
        return model, fit("tiny", model, recipe, common, *splits, changed, plain)

    return run


@pytest.mark.parametrize("kind", ["text", "image", "fusion"])
def test_a_member_memorises_a_few_examples(
    kind: str, train: Callable[..., Any], expert: Recipe, fusion: Recipe
) -> None:
    recipe = (fusion if kind == "fusion" else lambda **keys: expert(kind, **keys))(
        epochs=12, batch_size=6, schedule="constant_with_warmup"
    )
    _, curve = train(recipe, val="train")
    assert curve[-1].val_accuracy == 1.0
    assert curve[-1].val_loss < min(0.3, curve[0].val_loss)
    assert [epoch.epoch for epoch in curve] == list(range(1, 13))


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(train: Callable[..., Any], fusion: Recipe) -> None:
    recipe = fusion(dropout=0.2, modality_dropout=0.3, label_smoothing=0.1)
    first, again = (train(recipe)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_another_seed_gives_other_weights(train: Callable[..., Any], expert: Recipe) -> None:
    first, other = (train(expert(epochs=1), seed=seed)[0].head.weight for seed in (0, 1))
    assert not torch.equal(first, other)


def test_patience_keeps_the_best_epoch_and_stops(
    train: Callable[..., Any], expert: Recipe, read: Callable[..., Examples], readers: dict[str, Reader]
) -> None:
    model, curve = train(expert(epochs=30, batch_size=2, patience=2, learning_rate={"encoder": 0.03, "head": 0.3}))
    losses = [epoch.val_loss for epoch in curve]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    val = read("val", only=["text"])
    found = predict_log_probs(model, val, Collator(readers, 3))
    kept = -found[range(len(val)), val.labels].mean()
    assert kept == pytest.approx(min(losses), abs=1e-5)


def test_without_patience_the_last_epoch_is_kept(train: Callable[..., Any], expert: Recipe) -> None:
    _, curve = train(expert(epochs=3, learning_rate={"encoder": 0.03, "head": 0.3}))
    assert len(curve) == 3


def test_frozen_embeddings_stay_as_loaded_and_the_rest_moves(
    train: Callable[..., Any], expert: Recipe, build: Build
) -> None:
    before = build(expert()).state_dict()
    after = train(expert(weight_decay=0.1), freeze_embeddings=True)[0].state_dict()
    name = "encoders.text.backbone.embeddings.word_embeddings.weight"
    assert torch.equal(after[name], before[name])
    assert not torch.equal(after["head.weight"], before["head.weight"])
    position = name.replace("word", "position")
    assert not torch.equal(after[position], before[position])


def test_a_frozen_encoder_stays_as_loaded(train: Callable[..., Any], fusion: Recipe, build: Build) -> None:
    recipe = fusion(
        tuning={"text": "frozen", "image": "full"}, learning_rate={"text": None, "image": 1e-3, "head": 1e-2},
        weight_decay=0.1,
    )  # fmt: skip
    before, after = build(recipe).state_dict(), train(recipe)[0].state_dict()
    moved = {
        name.split(".")[1]
        for name in before
        if name.startswith("encoders") and not torch.equal(before[name], after[name])
    }
    assert moved == {"image"}


def groups(model: FusionModel, recipe: Member) -> dict[str, tuple[float, float]]:
    """Return learning rate and decay of every parameter that is trained, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, recipe)
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_each_part_of_a_fusion_member_has_its_learning_rate(build: Build, fusion: Callable[..., Fusion]) -> None:
    recipe = fusion()
    found = groups(build(recipe), recipe)
    rates = {prefix: {rate for name, (rate, _) in found.items() if name.startswith(prefix)} for prefix in
             ("encoders.text", "encoders.image", "fusion", "head", "missing")}  # fmt: skip
    assert rates == {
        "encoders.text": {1e-3},
        "encoders.image": {2e-3},
        "fusion": {1e-2},
        "head": {1e-2},
        "missing": {1e-2},
    }


def test_each_part_of_an_expert_has_its_learning_rate(build: Build, expert: Callable[..., Expert]) -> None:
    recipe = expert("image")
    assert {name.split(".")[0]: rate for name, (rate, _) in groups(build(recipe), recipe).items()} == {
        "encoders": 1e-3, "head": 1e-2,
    }  # fmt: skip


def test_matrices_decay_and_biases_and_norms_and_absences_do_not(build: Build, fusion: Callable[..., Fusion]) -> None:
    recipe = fusion(weight_decay=0.1)
    model = build(recipe)
    dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
    found = groups(model, recipe)
    assert found.keys() == dimensions.keys()
    assert all(decay == (0.1 if dimensions[name] > 1 else 0.0) for name, (_, decay) in found.items())


def test_what_is_frozen_is_in_no_group(build: Build, fusion: Callable[..., Fusion]) -> None:
    recipe = fusion(
        tuning={"text": "full", "image": "frozen"}, learning_rate={"text": 1e-3, "image": None, "head": 1e-2}
    )
    model = build(recipe, freeze_embeddings=True)
    tune(model, recipe)
    found = groups(model, recipe)
    assert not [name for name in found if name.startswith("encoders.image") or "word_embeddings" in name]
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_bf16_is_refused_without_a_gpu(expert: Recipe, tmp_path: Any) -> None:
    assert not build_arguments(expert(), COMMON, tmp_path).bf16
    with pytest.raises(ConfigError, match="bf16 needs a GPU"):
        build_arguments(expert(), COMMON.model_copy(update={"precision": "bf16", "device": "cpu"}), tmp_path)


def test_every_validation_row_counts_whatever_the_last_training_batch_holds(
    train: Callable[..., Any], expert: Recipe, read: Callable[..., Examples], readers: dict[str, Reader]
) -> None:
    recipe = expert(epochs=1, batch_size=20)  # 21 training rows: the last batch holds one
    model, (epoch,) = train(recipe)
    val = read("val", only=["text"])
    found = predict_log_probs(model, val, Collator(readers, 3))
    assert epoch.val_loss == pytest.approx(-found[range(len(val)), val.labels].mean(), abs=1e-5)


def test_validation_is_never_smoothed(train: Callable[..., Any], expert: Recipe) -> None:
    seen: list[Tensor] = []
    original = Collator.__call__

    def spy(self: Collator, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        made = original(self, rows)
        seen.append(made["labels"].max())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collator, "__call__", spy)
        train(expert(epochs=1, label_smoothing=0.3, batch_size=32))
    assert [round(float(largest), 3) for largest in seen] == [0.8, 1.0]
