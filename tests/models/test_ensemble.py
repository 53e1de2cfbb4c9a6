"""Pooling, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.models.combine import combine, number_patterns, patterns_of, usable
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from tests.conftest import combiner_of

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
        dict(zip(ensemble.names, ensemble.members, strict=True)), combiner_of(ensemble.combiner.weights_M.tolist(), 1.6)
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
    whole = Ensemble(members, combiner_of([0.2, 0.3, 0.5])).eval()
    with torch.no_grad():
        shared = whole(**batch)
        assert sorted(calls) == ["fusion image", "image image", "text text"]  # images begin with other weights
        next(members["fusion"].encoders["text"].parameters()).data.view(-1)[0] += 1e-6
        apart = Ensemble(members, combiner_of([0.2, 0.3, 0.5])).eval()(**batch)
    assert sorted(calls[3:]) == ["fusion image", "fusion text", "image image", "text text"]
    for one, other in zip(shared, apart, strict=True):
        torch.testing.assert_close(one, other)


def test_each_pattern_of_availability_has_a_number_and_weights_of_its_own() -> None:
    assert patterns_of(["text", "image"]) == ["", "text", "image", "text+image"]
    text, image = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    assert number_patterns([text, image]).tolist() == [0, 1, 2, 3]
    table = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    combiner = combiner_of([0.5, 0.5], pool="arithmetic", by_pattern=table)
    found = combiner(TWO.expand(4, -1, -1), ALL.expand(4, -1), torch.arange(4)).softmax(1)
    expected = [[0.65, 0.35], [0.8, 0.2], [0.5, 0.5], [0.575, 0.425]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_stacking_adds_what_members_say_of_classes_before_the_temperature() -> None:
    stack = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]]])  # the second says as much of both
    plain, stacked = combiner_of([0.5, 0.5], 2.0), combiner_of([0.5, 0.5], 2.0, stack=(stack, torch.tensor([0.0, 3.0])))
    where = TWO, ALL, torch.zeros(1, dtype=torch.long)
    centred = (TWO[0, 0, 0] - TWO[0, 0].mean()).item()
    torch.testing.assert_close(stacked(*where) - plain(*where), torch.tensor([[0.0, (3.0 + centred) / 2]]))
    absent = TWO, torch.tensor([[False, True]]), torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(stacked(*absent) - plain(*absent), torch.tensor([[0.0, 1.5]]))


def test_what_is_left_without_a_member_has_the_others_rows_of_everything() -> None:
    stack = torch.arange(12.0).view(3, 2, 2), torch.tensor([1.0, 2.0])
    table = torch.arange(6.0).view(2, 3)
    rest = combiner_of([0.2, 0.3, 0.5], by_pattern=table, stack=stack).without(1)
    assert rest.weights_M.tolist() == pytest.approx([0.2, 0.5])
    assert rest.by_pattern_PM is not None
    assert rest.by_pattern_PM.tolist() == [[0.0, 2.0], [3.0, 5.0]]
    assert rest.stack_MCC is not None
    assert rest.stack_MCC.tolist() == stack[0][[0, 2]].tolist()
