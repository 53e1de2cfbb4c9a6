"""Losses and labels of training, by numbers worked out by hand, and against torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fuseline.inputs.base import Reader
from fuseline.models.losses import cross_entropy
from fuseline.models.member import FusionModel
from fuseline.tasks.classification import Classification
from fuseline.training.examples import Collator
from fuseline.training.targets import TrainingCollator, soften, weigh_classes

LOGITS = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)], [math.log(0.5), math.log(0.25), math.log(0.25)]])
"""Of two rows with the probabilities .7 .2 .1 and .5 .25 .25."""
ONE_HOT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_the_focal_loss_is_as_worked_out_by_hand() -> None:
    expected = (-(0.3**2) * math.log(0.7) - 0.75**2 * math.log(0.25)) / 2
    assert float(cross_entropy(LOGITS, ONE_HOT, 2.0)) == pytest.approx(expected)


def test_smoothing_weights_and_focal_loss_together_are_as_worked_out_by_hand() -> None:
    weights = torch.tensor([2.0, 0.5, 1.0])
    labels = soften(ONE_HOT, 0.3, weights)
    torch.testing.assert_close(labels, torch.tensor([[2 * 0.8, 0.5 * 0.1, 0.1], [2 * 0.1, 0.5 * 0.8, 0.1]]))
    first = 1.6 * 0.3 * math.log(0.7) + 0.05 * 0.8 * math.log(0.2) + 0.1 * 0.9 * math.log(0.1)
    second = 0.2 * 0.5 * math.log(0.5) + 0.4 * 0.75 * math.log(0.25) + 0.1 * 0.75 * math.log(0.25)
    assert float(cross_entropy(LOGITS, labels, 1.0)) == pytest.approx(-(first + second) / 2)


def test_without_gamma_it_is_torch_s_cross_entropy_to_the_last_bit() -> None:
    assert torch.equal(cross_entropy(LOGITS, ONE_HOT), F.cross_entropy(LOGITS, ONE_HOT))


def test_smoothing_and_weights_are_torch_s_up_to_the_mean() -> None:
    weights, classes = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0, 1])
    ours = cross_entropy(LOGITS, soften(ONE_HOT, 0.2, weights)) * 2
    theirs = F.cross_entropy(LOGITS, classes, weight=weights, label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(ours, theirs)


def test_a_sure_prediction_has_a_finite_focal_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    cross_entropy(logits, ONE_HOT[:1], 0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_one_on_average_over_the_training_rows(expert: Callable[..., Any]) -> None:
    found = np.array([0] * 6 + [1] * 3 + [2])
    weights = weigh_classes(expert(class_weights="balanced"), Classification(["a", "b", "c"]), found)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert float(weights[found].mean()) == pytest.approx(1.0)


def test_a_class_without_a_training_row_does_not_divide_by_zero(expert: Callable[..., Any]) -> None:
    weights = weigh_classes(expert(class_weights="balanced"), Classification(["a", "b"]), np.array([0, 0]))
    assert torch.isfinite(weights).all()


def test_given_weights_stand_in_the_order_of_the_labels(expert: Callable[..., Any]) -> None:
    recipe = expert(class_weights={"b": 2.0, "a": 1.0})
    assert weigh_classes(recipe, Classification(["a", "b"]), np.array([0])).tolist() == [1.0, 2.0]
    assert weigh_classes(expert(), Classification(["a", "b"]), np.array([0])) is None


def test_a_training_batch_is_mixed_then_smoothed_then_weighted(
    expert: Callable[..., Any], readers: dict[str, Reader]
) -> None:
    image = {"flip": 0, "degrees": 0, "translate": 0, "scale": 0, "color": 0, "erase": 0, "mixup": 1.0}
    recipe = expert("image", augment={"image": image}, label_smoothing=0.3)
    weights = torch.tensor([1.0, 10.0, 100.0])
    rows = [{"image": np.full((8, 8, 3), 99 * n, dtype=np.uint8), "label": n, "draw": 4 + n}
            for n in range(2)]  # fmt: skip
    plain = Collator({"image": readers["image"]}, 3)
    labels = TrainingCollator(plain, recipe, weights)(rows)["labels"] / weights
    assert labels.sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert labels[:, 2].tolist() == pytest.approx([0.1, 0.1])  # neither row's class: smoothing alone
    assert 0.1 < float(labels[0, 1]) < 0.8


def test_the_focal_loss_is_training_s_alone(
    build: Callable[..., FusionModel], expert: Callable[..., Any], batch: dict[str, torch.Tensor]
) -> None:
    model = build(expert())
    plain = model(**batch)["loss"]
    model.gamma = 2.0
    assert torch.equal(model(**batch)["loss"], plain)
    assert model.train()(**batch)["loss"] < plain
