"""Each epoch deals each row once, and a step holds the same rows however it is cut."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from fuseline.training.steps import Replay, Steps


def dealt(
    rows: int, batch_size: int, parts: int = 1, processes: int = 1, epoch: int = 0, pool: int | None = None
) -> list[list[int]]:
    """Return the rows of each step, its parts joined; row n is n % 7 long."""
    steps: list[list[int]] = []
    for rank in range(processes):
        sampler = Steps(np.arange(rows) % 7.0, batch_size, 7, parts, rank, processes, pool)
        sampler.epoch = epoch
        own = list(sampler)
        assert len(own) == len(sampler)
        for number, part in enumerate(own):
            assert part
            if number // parts == len(steps):
                steps.append([])
            steps[number // parts] += part
    return steps


@pytest.mark.parametrize(("parts", "processes"), [(1, 1), (3, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize(("rows", "pool"), [(24, None), (21, None), (26, None), (24, 2), (21, 2)])
def test_steps_hold_the_same_rows_in_any_number_of_parts_and_processes(
    rows: int, pool: int | None, parts: int, processes: int
) -> None:
    plain, cut = dealt(rows, 8, pool=pool), dealt(rows, 8, parts, processes, pool=pool)
    if rows == 26 and parts * processes > 2:  # the last two rows are fewer than the parts
        plain = [*plain[:-2], plain[-2] + plain[-1]]
    assert [sorted(step) for step in cut] == [sorted(step) for step in plain]
    assert sorted(chain.from_iterable(cut)) == list(range(rows))


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert dealt(20, 6) == dealt(20, 6)
    assert dealt(20, 6) != dealt(20, 6, epoch=1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7 + 3)).tolist()
    assert list(chain.from_iterable(dealt(20, 6, epoch=3))) == order


def test_rows_of_near_length_share_a_step_and_steps_come_in_any_order() -> None:
    steps = dealt(280, 8, pool=35)
    assert sorted(chain.from_iterable(steps)) == list(range(280))
    assert [len({row % 7 for row in step}) for step in steps] == [1] * 35
    lengths = [step[0] % 7 for step in steps]
    assert lengths != sorted(lengths)
    assert max(len({row % 7 for row in step}) for step in dealt(280, 8)) > 1


def test_each_epoch_draws_steps_and_their_order_anew() -> None:
    first, again, second = dealt(280, 8, pool=5), dealt(280, 8, pool=5), dealt(280, 8, pool=5, epoch=1)
    assert first == again
    assert {frozenset(step) for step in first}.isdisjoint(frozenset(step) for step in second)
    assert [step[0] % 7 for step in first] != [step[0] % 7 for step in second]


@pytest.mark.parametrize(("share", "count"), [(0.25, 3), (0.01, 1), (1.0, 10)])
def test_an_epoch_takes_all_new_rows_and_a_share_of_the_others_drawn_anew(share: float, count: int) -> None:
    old = torch.arange(5, 15)
    sampler = Steps(np.zeros(24), 4, seed=7, replay=Replay(old, share))
    epochs = []
    for sampler.epoch in range(3):
        rows = list(chain(*sampler))
        assert len(list(sampler)) == len(sampler)
        assert len(set(rows)) == len(rows) == 14 + count
        assert set(range(24)) - set(old.tolist()) <= set(rows)
        epochs.append(frozenset(rows))
    assert (len(set(epochs)) > 1) == (share < 1)


def test_nothing_replayed_is_the_same_order_as_before_there_was_replay() -> None:
    generator = torch.Generator().manual_seed(7)
    assert list(chain(*Steps(np.zeros(24), 5, seed=7))) == torch.randperm(24, generator=generator).tolist()
