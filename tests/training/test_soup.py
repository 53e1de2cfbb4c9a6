"""A soup: what is averaged, what stays out, and that it is the same soup after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuseline.config import Encoders, Member
from fuseline.models.member import FusionModel
from fuseline.records import History
from fuseline.tasks.classification import Classification
from fuseline.training.checkpoints import load_member
from fuseline.training.session import train_member
from fuseline.training.soup import Validated, Weights, average, greedy_soup, refresh_norms
from fuseline.training.trainer import MemberTrainer, set_up
from tests.conftest import LABELS
from tests.training.test_resume import AUGMENT, COMMON, LORA, cut

Recipe = Callable[..., Any]


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


def number(value: float) -> Weights:
    return {"weight": torch.tensor([value])}


@pytest.mark.parametrize(
    ("values", "expected", "kept"),
    [
        ([2.0, 0.0], 1.0, {0: True, 1: True}),
        ([1.5, 9.0, 0.5], 1.0, {0: True, 1: False, 2: True}),
        ([9.0, 8.0], 8.0, {0: False, 1: True}),
    ],
    ids=["an average that is better", "one that is worse stays out, the next is tried", "the best alone"],
)
def test_an_ingredient_stays_if_validation_does_not_lose_by_it(
    values: list[float], expected: float, kept: dict[int, bool]
) -> None:
    """Score by how near to 1 a weight is; 8 and 9 are so far off that only the loss tells them apart."""

    def validate(weights: Weights) -> Validated:
        far = abs(float(weights["weight"]) - 1)
        return Validated(1.0 - min(far, 2.0), -far)

    soup, tried = greedy_soup([number(value) for value in values], validate, lambda weights: weights)
    assert float(soup["weight"]) == expected
    assert {each.number: each.kept for each in tried} == kept
    assert [each.alone for each in tried] == sorted((each.alone for each in tried), reverse=True)


def test_what_all_ingredients_have_alike_stays_to_the_last_bit() -> None:
    torch.manual_seed(0)
    weights = {"weight": torch.randn(1000) / 3, "count": torch.tensor(7)}
    mean = average([weights] * 3)
    assert torch.equal(mean["weight"], weights["weight"])
    assert mean["count"] == 7
    assert torch.equal(average([number(1.0), number(2.0)])["weight"], torch.tensor([1.5]))


def test_running_numbers_are_those_of_the_rows_and_of_trained_norms_only(
    build: Callable[..., FusionModel], expert: Recipe, batch: dict[str, torch.Tensor]
) -> None:
    model = build(expert("image"))
    norm = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_hook(lambda _, given, out: seen.append(given[0].detach()))
    rows = {key: tensor[batch["has_image"]] for key, tensor in batch.items() if key in ("pixels", "has_image")}
    refresh_norms(model, [rows])
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen[0].transpose(0, 1).flatten(1).var(1))
    assert norm.momentum == 0.1
    assert not model.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refresh_norms(model, [{key: tensor[:1] for key, tensor in rows.items()}])  # norms cannot learn from one row
    model.encoders["image"].requires_grad_(False)
    refresh_norms(model, [{key: tensor[:2] for key, tensor in rows.items()}])  # frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def train(
    prepared: Path, encoders: Encoders, build: Callable[..., FusionModel], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[FusionModel, History]]:  # fmt: skip
    """Give the trainer of a new member."""
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))

    def run(recipe: Member, name: str, seed: int = 0) -> tuple[FusionModel, History]:
        (tmp_path / name).mkdir(exist_ok=True)
        common = COMMON.model_copy(update={"seed": seed})
        train_member("tiny", build(recipe), recipe, Classification(LABELS), encoders, common, prepared, tmp_path / name)
        return load_member(tmp_path / name), History.read(tmp_path / name / "history.json")

    return run


def same(one: FusionModel, other: FusionModel) -> bool:
    found = one.state_dict()
    return all(torch.equal(tensor, found[name]) for name, tensor in other.state_dict().items())


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "adapters": ("text", {"tuning": LORA, "epochs": 2, "dropout": 0.2}),
    "pictures, changed and mixed": ("image", {"epochs": 2, "augment": {"image": AUGMENT}}),
    "a frozen encoder": ("fusion", {"epochs": 3, "dropout": 0.3, "tuning": {"text": "frozen", "image": "full"},
                                    "learning_rate": {"text": None, "image": 1e-3, "head": 1e-2}}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_soup_that_was_cut_short_is_the_same_to_the_last_bit(
    name: str, train: Callable[..., Any], expert: Recipe, fusion: Recipe, build: Callable[..., FusionModel]
) -> None:
    kind, keys = RECIPES[name]
    make = fusion if kind == "fusion" else lambda **given: expert(kind, **given)
    recipe = make(soup={"seeds": 2}, **keys)
    soup, history = train(recipe, "whole")
    cut(lambda: train(recipe, "cut"), 8)  # in the second training; the first is not done again
    again, history_again = train(recipe, "cut")
    assert same(soup, again)
    assert history_again == history
    assert sorted(each.seed for each in history.soup) == [0, 1]
    frozen = [part for part, tuning in recipe.tunings.items() if tuning == "frozen"]
    plain = build(recipe).state_dict()
    assert all(
        torch.equal(tensor, plain[key]) for key, tensor in soup.state_dict().items()
        if any(key.startswith(f"encoders.{part}.backbone") for part in frozen)
    )  # fmt: skip


def test_the_history_tells_what_went_in_and_what_it_reached(train: Callable[..., Any], expert: Recipe) -> None:
    keys = {"epochs": 4, "dropout": 0.2, "learning_rate": {"encoder": 0.005, "head": 0.01}}
    alone = {seed: train(expert(**keys), f"alone-{seed}", seed=seed) for seed in (0, 1, 2)}
    soup, history = train(expert(soup={"seeds": 3}, **keys), "soup")
    first = history.soup[0]
    assert (first.kept, first.soup_score, first.soup_loss) == (True, first.score, first.loss)
    assert history.epochs == first.epochs
    order = [(-each.score, each.loss) for each in history.soup]
    assert order == sorted(order)
    kept = [each.seed for each in history.soup if each.kept]
    assert len(kept) > 1
    expected = average([alone[seed][0].state_dict() for seed in kept])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in soup.state_dict().items())
    last = [each for each in history.soup if each.kept][-1]
    assert last.soup_score >= first.score
    log_probs = np.load(Path(soup.name_or_path) / "validation.npy")
    assert np.isfinite(log_probs).all()


def test_trainings_of_a_soup_are_gone_on_with_one_by_one(
    train: Callable[..., Any], expert: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, steps, plain = expert(soup={"seeds": 2}), [0], MemberTrainer.training_step
    cut(lambda: train(recipe, "cut"), 7)

    def step(*arguments: Any, **keys: Any) -> Any:
        steps[0] += 1
        return plain(*arguments, **keys)

    monkeypatch.setattr(MemberTrainer, "training_step", step)
    train(recipe, "cut")
    assert steps[0] < 8
