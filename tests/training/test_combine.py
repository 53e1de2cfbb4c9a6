"""The fit of weights and temperature recovers what it should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.config import Fitted, Greedy, Stacking
from fuseline.models.combine import combine, correct
from fuseline.training.combine import (
    Said,
    choose_stack,
    choose_weights,
    fit_stack,
    fit_temperature,
    fit_weights,
    leave_out,
    select_greedily,
    weigh_by_pattern,
)
from tests.conftest import combiner_of

NOTHING_MISSING = torch.zeros(400, dtype=torch.long)
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
    found = leave_out(log_probs, usable, NOTHING_MISSING, combiner_of([0.5, 0.3, 0.2], 2.0).double())
    expected = combine(log_probs[:, 1:], usable[:, 1:], torch.tensor([0.6, 0.4]).double(), "geometric") / 2
    torch.testing.assert_close(found[0], expected.softmax(1))


def test_who_is_left_without_any_weight_counts_alike() -> None:
    log_probs, usable, _ = draw(2.0, 1.0, 0.5)
    found = leave_out(log_probs, usable, NOTHING_MISSING, combiner_of([1.0, 0.0, 0.0], pool="arithmetic").double())
    torch.testing.assert_close(found[0], log_probs[:, 1:].exp().mean(1))


def say(log_probs: Tensor, usable: Tensor, labels: Tensor, patterns: Tensor | None = None) -> Said:
    """Two modalities; each row is a group of its own."""
    numbers = torch.full((len(labels),), 3) if patterns is None else patterns
    return Said(log_probs, usable, labels, numbers, np.arange(len(labels)), ["text", "image"])


def test_weights_of_a_pattern_are_those_of_its_rows_drawn_to_all_rows_by_their_number() -> None:
    log_probs, usable, labels = draw(3.0, 0.5)
    log_probs[:100] = log_probs[:100].flip(1)  # in the first rows, with text alone, the other member is good
    patterns = torch.cat([torch.full((100,), 1), torch.full((300,), 3)])
    said, how = say(log_probs, usable, labels, patterns), Fitted(uniform_pull=0.0)
    whole = choose_weights(log_probs, usable, labels, "geometric", how)
    own = choose_weights(log_probs[:100], usable[:100], labels[:100], "geometric", how)
    assert own[1] > 0.7 > whole[1]
    for pull, share in ((0.001, 1.0), (100.0, 0.5), (1e9, 0.0)):
        table = weigh_by_pattern(said, whole, "geometric", how, pull)
        expected = [share * mine + (1 - share) * all_rows for mine, all_rows in zip(own, whole, strict=True)]
        assert table[1].tolist() == pytest.approx(expected, abs=1e-4)
        assert table[0].tolist() == table[2].tolist() == pytest.approx(whole)  # no rows of these
        assert table.sum(1).tolist() == pytest.approx([1.0] * 4)


def skewed() -> tuple[Said, Tensor]:
    """Give members that name the second class where the third is true: no pool mends that, stacking does."""
    log_probs, usable, labels = draw(2.0, 2.0)
    wrong = torch.where(labels == 2, 1, labels)
    shifted = torch.randn(400, 2, 3, generator=torch.Generator().manual_seed(3)).double() * 0.3
    shifted += 3 * torch.eye(3, dtype=torch.float64)[wrong][:, None]
    shifted[:, :, 2] += 1.0 * (labels == 2)[:, None]
    log_probs = shifted.log_softmax(2)
    return say(log_probs, usable, labels), combine(log_probs, usable, torch.tensor([0.5, 0.5]).double(), "geometric")


def test_stacking_mends_what_no_weights_can_and_is_kept_for_its_held_out_loss() -> None:
    said, pooled = skewed()
    stack, losses = choose_stack(said, pooled, Stacking(penalties=[0.1, 1.0], folds=4))
    assert stack is not None
    assert min(losses["0.1"], losses["1"]) < losses["none"] - 0.1
    right = [
        float((logits.argmax(1) == said.labels_U).double().mean())
        for logits in (pooled, pooled + correct(said.log_probs_UMC, said.usable_UM, stack[0]) + stack[1])
    ]
    assert right[1] > right[0] + 0.2


def test_where_there_is_nothing_to_mend_the_pool_stays_as_it_is() -> None:
    random = torch.Generator().manual_seed(5)
    log_probs, usable, _ = draw(2.0, 2.0, rows=60)
    labels = torch.randint(3, (60,), generator=random)  # chance: whatever is fitted is noise
    pooled = combine(log_probs, usable, torch.tensor([0.5, 0.5]).double(), "geometric")
    stack, losses = choose_stack(say(log_probs, usable, labels), pooled, Stacking(penalties=[1e-4, 1e-3], folds=3))
    assert stack is None
    assert losses.keys() == {"none", "0.0001", "0.001"}
    assert losses["none"] == min(losses.values())


def test_groups_are_held_out_whole() -> None:
    said, pooled = skewed()
    one = dataclasses.replace(said, groups_U=np.repeat(np.arange(2), 200))
    assert (
        choose_stack(one, pooled, Stacking(penalties=[1.0], folds=2))[1]
        != (choose_stack(said, pooled, Stacking(penalties=[1.0], folds=2))[1])
    )


def test_a_stronger_penalty_brings_the_correction_closer_to_none() -> None:
    said, pooled = skewed()
    everything = torch.ones(400, dtype=torch.bool)
    sizes = [float(fit_stack(said, pooled, penalty, everything)[0].norm()) for penalty in (0.1, 10.0, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-2


def test_more_folds_are_other_folds() -> None:
    said, pooled = skewed()
    two, five = (choose_stack(said, pooled, Stacking(penalties=[1.0], folds=folds))[1] for folds in (2, 5))
    assert two != five
