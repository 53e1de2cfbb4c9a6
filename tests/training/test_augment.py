"""Random changes of training pictures: each setting does something, and none does more than it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.config import Augment
from fuseline.training.augment import build_change

NONE = {"flip": 0.0, "degrees": 0.0, "translate": 0.0, "scale": 0.0, "color": 0.0, "erase": 0.0}


def picture() -> Tensor:
    """Paint a dark, uneven picture."""
    return torch.arange(24 * 24 * 3, dtype=torch.uint8).reshape(24, 24, 3) // 4


def change(seed: int = 0, **settings: Any) -> Tensor:
    torch.manual_seed(seed)
    return build_change(Augment.model_validate(NONE | settings))(picture())


def test_all_settings_at_zero_change_nothing() -> None:
    assert all(torch.equal(change(seed), picture()) for seed in range(5))


@pytest.mark.parametrize(
    "setting",
    [{"flip": 0.9}, {"degrees": 30}, {"translate": 0.3}, {"scale": 0.4}, {"color": 0.5}, {"erase": 0.9}],
    ids=str,
)
def test_each_setting_changes_pictures(setting: dict[str, float]) -> None:
    changed = [change(seed, **setting) for seed in range(8)]
    assert any(not torch.equal(one, picture()) for one in changed)
    assert all(one.shape == (24, 24, 3) and one.dtype == torch.uint8 and one.is_contiguous() for one in changed)


def test_a_flip_mirrors_left_and_right() -> None:
    seen = [change(seed, flip=0.5) for seed in range(40)]
    mirrored = sum(torch.equal(one, picture().flip(1)) for one in seen)
    assert mirrored + sum(torch.equal(one, picture()) for one in seen) == 40
    assert 10 < mirrored < 30


@pytest.mark.parametrize("setting", [{"degrees": 45}, {"translate": 0.4}, {"erase": 0.9}], ids=str)
def test_white_fills_what_comes_in(setting: dict[str, float]) -> None:
    assert any((change(seed, **setting) == 255).all(dim=2).sum() > 20 for seed in range(8))


def test_the_same_seed_gives_the_same_change_and_another_seed_another() -> None:
    settings = {"degrees": 15.0, "translate": 0.1, "scale": 0.15, "color": 0.2}
    assert torch.equal(change(3, **settings), change(3, **settings))
    assert not torch.equal(change(3, **settings), change(4, **settings))
