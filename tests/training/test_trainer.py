"""Training learns, repeats itself, keeps the best epoch, and moves what it should."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from fuseline.config import Expert, Fusion, Member, Train
from fuseline.errors import ConfigError
from fuseline.inputs.base import Reader
from fuseline.models.member import FusionModel
from fuseline.records import Epoch
from fuseline.tasks.classification import Classification
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import predict_log_probs
from fuseline.training.targets import TrainingCollator
from fuseline.training.trainer import build_arguments, build_optimizer, fit, score_by, set_up
from fuseline.training.tuning import tune
from tests.conftest import LABELS

Recipe = Callable[..., Any]
Build = Callable[..., FusionModel]
COMMON = Train(seed=0, threads=1, precision="fp32", device="cpu", processes=1, length_pool=None, checkpoint_steps=None)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def train(
    build: Build, read: Callable[..., Examples], readers: dict[str, Reader], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """Give the trainer of a new member on the tiny examples."""

    def run(recipe: Member, seed: int = 0, val: str = "val", **options: Any) -> tuple[FusionModel, list[Epoch]]:
        model = build(recipe, **options)
        tune(model, recipe)
        splits = (read(split, only=recipe.modalities) for split in ("train", val))
        common = COMMON.model_copy(update={"seed": seed})
        plain = Collator(readers, 3)
        changed, folder = TrainingCollator(plain, recipe, None), tmp_path_factory.mktemp("checkpoints")
        return model, fit(
            "tiny", model, recipe, score_by(Classification(LABELS), model), common, *splits, changed, plain, folder
        )

    return run


@pytest.mark.parametrize("kind", ["text", "image", "fusion"])
def test_a_member_memorises_a_few_examples(
    kind: str, train: Callable[..., Any], expert: Recipe, fusion: Recipe
) -> None:
    recipe = (fusion if kind == "fusion" else lambda **keys: expert(kind, **keys))(
        epochs=24, batch_size=6, schedule="constant_with_warmup"
    )
    _, curve = train(recipe, val="train")
    assert curve[-1].val_score == 1.0
    assert curve[-1].val_loss < min(0.3, curve[0].val_loss)
    assert [epoch.epoch for epoch in curve] == list(range(1, 25))


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


def test_validation_is_never_smoothed_or_weighted_or_focal(
    train: Callable[..., Any], expert: Recipe, read: Callable[..., Examples], readers: dict[str, Reader]
) -> None:
    recipe = expert(epochs=1, label_smoothing=0.3, batch_size=32, loss={"gamma": 3.0})
    model, (epoch,) = train(recipe)
    val = read("val", only=["text"])
    found = predict_log_probs(model, val, Collator(readers, 3))
    assert epoch.val_loss == pytest.approx(-found[range(len(val)), val.labels].mean(), abs=1e-5)


def test_a_step_in_parts_gives_the_same_weights_as_a_whole_one(train: Callable[..., Any], expert: Recipe) -> None:
    keys = {
        "batch_size": 8,
        "label_smoothing": 0.1,
        "optimizer": {"momentum": 0.9, "nesterov": True},
    }  # 21 rows: 8, 8, 5
    whole, parts = (train(expert(accumulation=number, **keys), still=True) for number in (1, 3))
    for name, tensor in whole[0].state_dict().items():
        torch.testing.assert_close(parts[0].state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    assert [epoch.train_loss for epoch in parts[1]] == pytest.approx([epoch.train_loss for epoch in whole[1]], abs=1e-5)


def rates(recipe: Member, model: FusionModel, tmp_path: Path, steps: int = 20) -> list[float]:
    """Return the share of its peak that a schedule leaves the head, step by step."""
    arguments = build_arguments(recipe, COMMON, tmp_path)
    trainer = Trainer(model=model, args=arguments, eval_dataset=[], optimizers=(build_optimizer(model, recipe), None))
    scheduler, found = trainer.create_scheduler(steps), []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[-1] / recipe.learning_rate.head)
        scheduler.optimizer.step()
        scheduler.step()
    return found


SCHEDULES = {
    "linear": ("linear", {0: 1.0, 10: 0.5}),
    "cosine": ("cosine", {0: 1.0, 5: (1 + math.cos(math.pi / 4)) / 2, 10: 0.5}),
    "constant": ("constant", {0: 1.0, 19: 1.0}),
    "polynomial": ({"power": 2.0, "end": 0.2}, {0: 1.0, 10: 0.2 + 0.8 * 0.25}),
    "restarts": ({"cycles": 2}, {0: 1.0, 5: 0.5, 10: 1.0, 15: 0.5}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_one_that_is_named(name: str, build: Build, expert: Recipe, tmp_path: Path) -> None:
    schedule, expected = SCHEDULES[name]
    recipe = expert(schedule=schedule)
    found = rates(recipe, build(recipe), tmp_path)
    assert {step: found[step] for step in expected} == pytest.approx(expected)


def test_a_warmup_rises_over_its_share_of_the_steps(build: Build, expert: Recipe, tmp_path: Path) -> None:
    recipe = expert(schedule="constant_with_warmup", warmup=0.25)
    assert rates(recipe, build(recipe), tmp_path)[:7] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1])


def test_the_optimizer_is_the_one_that_is_named(build: Build, expert: Recipe) -> None:
    adam = build_optimizer(build(expert()), expert(optimizer={"betas": [0.8, 0.95], "eps": 1e-4}))
    assert isinstance(adam, torch.optim.AdamW)
    assert {(group["betas"], group["eps"]) for group in adam.param_groups} == {((0.8, 0.95), 1e-4)}
    sgd = build_optimizer(build(expert()), expert(optimizer={"momentum": 0.7, "nesterov": True}))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.7, True)}
