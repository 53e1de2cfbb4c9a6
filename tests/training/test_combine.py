"""The fit of weights and temperature recovers what it should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fuseline.config import Fitted, Greedy
from fuseline.models.combine import combine
from fuseline.training.combine import choose_weights, fit_temperature, fit_weights, leave_out, select_greedily

POOLS = ["arithmetic", "geometric"]


def draw(*skills: float, rows: int = 400, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Draw members of different skill: log-probabilities, all usable, labels."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=random)
    right = torch.eye(classes, dtype=torch.float64)[labels]
    members = [torch.randn(rows, classes, generator=random).double() + skill * right for skill in skills]
    return torch.stack([member.log_softmax(1) for member in members], 1), torch.ones(rows, len(skills)).bool(), labels


@pytest.mark.parametrize("pool", POOLS)
def test_the_better_member_weighs_more(pool: str) -> None:
    good, bad = fit_weights(*draw(3.0, 0.5), pool, 0.0)
    assert good > 0.7
    assert good + bad == pytest.approx(1)


@pytest.mark.parametrize("pool", POOLS)
def test_a_member_that_knows_nothing_weighs_almost_nothing(pool: str) -> None:
    weights = fit_weights(*draw(2.0, 2.0, -1.0), pool, 0.0)
    assert weights[2] < 0.05
    assert min(weights) >= 0


@pytest.mark.parametrize("pool", POOLS)
def test_a_stronger_pull_brings_the_weights_closer_to_equal(pool: str) -> None:
    spread = [fit_weights(*draw(3.0, 0.5), pool, pull)[0] - 0.5 for pull in (0.0, 0.05, 1.0, 100.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] == pytest.approx(0, abs=0.01)


def test_rows_that_a_member_cannot_use_do_not_count_for_or_against_it() -> None:
    log_probs, usable, labels = draw(2.0, 2.0)
    spoiled = log_probs.clone()
    spoiled[200:, 1] = torch.tensor([-9.0, -9.0, -0.001]).double().log_softmax(0)
    usable[200:, 1] = False
    good = fit_weights(log_probs[:200], usable[:200], labels[:200], "geometric", 0.0)
    assert fit_weights(spoiled, usable, labels, "geometric", 0.0) == pytest.approx(good, abs=1e-3)


def test_the_only_member_has_all_the_weight() -> None:
    assert fit_weights(*draw(1.0), "geometric", 0.1) == [1.0]


def test_the_order_of_the_members_does_not_matter() -> None:
    log_probs, usable, labels = draw(2.0, 1.0)
    there = fit_weights(log_probs, usable, labels, "geometric", 0.02)
    back = fit_weights(log_probs.flip(1), usable, labels, "geometric", 0.02)
    assert back[::-1] == pytest.approx(there, abs=1e-4)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_finds_the_scale_that_logits_were_multiplied_by(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=random).double()
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]  # so the logits are calibrated
    assert fit_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.05)


def test_the_temperature_stays_in_bounds_where_every_row_is_right() -> None:
    log_probs, _, labels = draw(50.0)
    assert 0.05 <= fit_temperature(log_probs[:, 0], labels) <= 20


def test_weights_are_found_as_asked_for() -> None:
    drawn = draw(3.0, 1.0)
    assert choose_weights(*drawn, "geometric", "equal") == [0.5, 0.5]
    assert choose_weights(*drawn, "geometric", Fitted(uniform_pull=0.3)) == fit_weights(*drawn, "geometric", 0.3)
    assert choose_weights(*drawn, "geometric", Greedy(rounds=7)) == select_greedily(*drawn, "geometric", 7)


@pytest.mark.parametrize("pool", POOLS)
def test_greedy_selection_begins_with_the_best_and_leaves_out_who_knows_nothing(pool: str) -> None:
    drawn = draw(1.0, 2.0, 1.9, -1.0)
    assert select_greedily(*drawn, pool, 1) == [0, 1, 0, 0]
    weights = select_greedily(*drawn, pool, 20)
    assert sum(weights) == pytest.approx(1)
    assert min(weights[1:3]) > 0.2
    assert weights[3] == 0


def test_each_round_of_greedy_selection_lowers_the_loss_as_far_as_one_member_can() -> None:
    log_probs, usable, labels = draw(2.0, 1.8, 1.0)

    def loss(weights: list[float]) -> float:
        pooled = combine(log_probs, usable, torch.tensor(weights).double(), "geometric")
        return float(torch.nn.functional.cross_entropy(pooled, labels))

    three, four = (select_greedily(log_probs, usable, labels, "geometric", rounds) for rounds in (3, 4))
    options = [[(3 * w + (i == member)) / 4 for i, w in enumerate(three)] for member in range(3)]
    assert loss(four) == pytest.approx(min(map(loss, options)))


def test_without_a_member_the_others_keep_their_proportions() -> None:
    log_probs, usable, _ = draw(2.0, 1.0, 0.5)
    found = leave_out(log_probs, usable, [0.5, 0.3, 0.2], 2.0, "geometric")
    expected = combine(log_probs[:, 1:], usable[:, 1:], torch.tensor([0.6, 0.4]).double(), "geometric") / 2
    torch.testing.assert_close(found[0], expected.softmax(1))


def test_who_is_left_without_any_weight_counts_alike() -> None:
    log_probs, usable, _ = draw(2.0, 1.0, 0.5)
    found = leave_out(log_probs, usable, [1.0, 0.0, 0.0], 1.0, "arithmetic")
    torch.testing.assert_close(found[0], log_probs[:, 1:].exp().mean(1))
