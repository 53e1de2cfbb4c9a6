"""Each epoch deals each row once, and a step holds the same rows however it is cut."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from fuseline.training.steps import Steps


def dealt(rows: int, batch_size: int, parts: int = 1, processes: int = 1, epoch: int = 0) -> list[list[int]]:
    """Return the rows of each step, its parts joined."""
    steps: list[list[int]] = []
    for rank in range(processes):
        sampler = Steps(rows, batch_size, 7, parts, rank, processes)
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
@pytest.mark.parametrize("rows", [24, 21, 26])
def test_steps_hold_the_same_rows_in_any_number_of_parts_and_processes(rows: int, parts: int, processes: int) -> None:
    plain, cut = dealt(rows, 8), dealt(rows, 8, parts, processes)
    if rows == 26 and parts * processes > 2:  # the last two rows are fewer than the parts
        plain = [*plain[:-2], plain[-2] + plain[-1]]
    assert [sorted(step) for step in cut] == [sorted(step) for step in plain]
    assert sorted(chain.from_iterable(cut)) == list(range(rows))


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert dealt(20, 6) == dealt(20, 6)
    assert dealt(20, 6) != dealt(20, 6, epoch=1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7 + 3)).tolist()
    assert list(chain.from_iterable(dealt(20, 6, epoch=3))) == order
