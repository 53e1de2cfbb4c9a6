"""Pooling, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.models.combine import combine, usable
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel

TWO = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).log()  # one example, two members, two classes
ALL = torch.tensor([[True, True]])


def pooled(pool: str, weights: list[float], usable_BM: Tensor = ALL) -> Tensor:
    return combine(TWO, usable_BM, torch.tensor(weights), pool).softmax(1)[0]


def test_the_arithmetic_pool_is_the_weighted_mean_of_probabilities() -> None:
    torch.testing.assert_close(pooled("arithmetic", [0.25, 0.75]), torch.tensor([0.575, 0.425]))


def test_the_geometric_pool_is_the_normalised_product_of_powers() -> None:
    # sqrt(0.8 * 0.5) : sqrt(0.2 * 0.5) = 2 : 1
    torch.testing.assert_close(pooled("geometric", [0.5, 0.5]), torch.tensor([2 / 3, 1 / 3]))


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_member_that_lacks_its_modality_has_no_say(pool: str) -> None:
    found = pooled(pool, [0.1, 0.9], torch.tensor([[True, False]]))
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2]))


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_the_others_share_its_weight_in_their_own_proportion(pool: str) -> None:
    three = torch.cat([TWO, torch.tensor([[[0.01, 0.99]]]).log()], dim=1)
    flags, weights = torch.tensor([[True, True, False]]), torch.tensor([0.2, 0.2, 0.6])
    torch.testing.assert_close(combine(three, flags, weights, pool).softmax(1)[0], pooled(pool, [0.5, 0.5]))


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_where_no_member_is_usable_all_speak(pool: str) -> None:
    found = pooled(pool, [0.3, 0.7], torch.tensor([[False, False]]))
    torch.testing.assert_close(found, pooled(pool, [0.3, 0.7]))


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_where_the_only_usable_member_weighs_nothing_it_speaks_all_the_same(pool: str) -> None:
    found = pooled(pool, [0.0, 1.0], torch.tensor([[True, False]]))
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2]))


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_member_that_is_certain_leaves_every_number_finite(pool: str) -> None:
    certain = torch.tensor([[[0.0, -1e4], [-1e4, 0.0]]])
    assert torch.isfinite(combine(certain, ALL, torch.tensor([0.5, 0.5]), pool)).all()


def test_members_are_usable_where_any_of_their_modalities_is_there() -> None:
    present = {"text": torch.tensor([True, False, False]), "image": torch.tensor([True, True, False])}
    flags = usable([["text"], ["image"], ["text", "image"]], present)
    assert flags.tolist() == [[True, True, True], [False, True, True], [False, False, False]]


def test_the_temperature_divides_the_logits_and_keeps_the_label(ensemble: Ensemble, batch: dict[str, Any]) -> None:
    del batch["labels"]
    hot = Ensemble(
        dict(zip(ensemble.names, ensemble.members, strict=True)), ensemble.weights_M.tolist(), 1.6, "geometric"
    ).eval()
    with torch.no_grad():
        (probs, logits, members), (hot_probs, hot_logits, hot_members) = ensemble(**batch), hot(**batch)
    torch.testing.assert_close(hot_logits, logits / 2)
    torch.testing.assert_close(hot_probs, hot_logits.softmax(1))
    assert torch.equal(hot_members, members)
    assert torch.equal(hot_probs.argmax(1), probs.argmax(1))


def test_the_members_own_probabilities_come_in_order_and_sum_to_one(ensemble: Ensemble, batch: dict[str, Any]) -> None:
    del batch["labels"]
    with torch.no_grad():
        members = ensemble(**batch)[2]
        alone = ensemble.members[ensemble.names.index("concat")](**batch)["logits"].softmax(1)
    assert members.shape == (8, 4, 3)
    torch.testing.assert_close(members.sum(2), torch.ones(8, 4))
    torch.testing.assert_close(members[:, ensemble.names.index("concat")], alone)


def test_an_encoder_that_members_share_runs_once_and_nothing_else_changes(
    build: Callable[..., FusionModel], expert: Callable[..., Any], fusion: Callable[..., Any], batch: dict[str, Any]
) -> None:
    del batch["labels"]
    members = {"text": build(expert("text")), "image": build(expert("image")), "fusion": build(fusion())}
    calls: list[str] = []
    for name, member in members.items():
        member.encoders.requires_grad_(False)
        for modality, encoder in member.encoders.items():
            encoder.register_forward_hook(lambda *_, what=f"{name} {modality}": calls.append(what))
    whole = Ensemble(members, [0.2, 0.3, 0.5], 1.0, "geometric").eval()
    with torch.no_grad():
        shared = whole(**batch)
        assert sorted(calls) == ["fusion image", "image image", "text text"]  # images begin with other weights
        next(members["fusion"].encoders["text"].parameters()).data.view(-1)[0] += 1e-6
        apart = Ensemble(members, [0.2, 0.3, 0.5], 1.0, "geometric").eval()(**batch)
    assert sorted(calls[3:]) == ["fusion image", "fusion text", "image image", "text text"]
    for one, other in zip(shared, apart, strict=True):
        torch.testing.assert_close(one, other)
