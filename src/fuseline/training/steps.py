"""Which rows each step sees, and in which parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Replay:
    """Rows that a member knows already, of which each epoch takes a share."""

    rows: Tensor
    """Their numbers, ascending, int64."""
    share: float

    @property
    def count(self) -> int:
        """How many each epoch takes: one at least, where there are any."""
        return math.ceil(len(self.rows) * self.share)


class Steps(Sampler[list[int]]):
    """Deal the rows of an epoch, in an order of its own, to steps, and each step's rows to equal parts.

    The same rows make a step however many processes there are and however many parts each takes; a process sees its
    own parts only. Parts differ by one row at most.

    Rows of near length share a step where a pool is given: rows drawn for as many steps as it says are sorted by
    length before they are dealt to these steps, and the epoch takes all steps in an order that is drawn as well.

    Args:
        lengths_N: of the rows.
        replay: rows of which each epoch takes a share, drawn anew, beside all others.
        batch_size: rows per step.
        seed: what the orders follow from, with the epoch.
        parts: of a step, in each process.
        rank: this process.
        processes: how many share a step.
        pool: steps; None deals rows without regard to their length.
    """

    def __init__(
        self, lengths_N: NDArray[np.float64], batch_size: int, seed: int, parts: int = 1, rank: int = 0,
        processes: int = 1, pool: int | None = None, replay: Replay | None = None,
    ) -> None:  # fmt: skip
        self.lengths_N, self.batch_size, self.seed, self.epoch = torch.from_numpy(lengths_N), batch_size, seed, 0
        self.parts, self.rank, self.processes, self.pool = parts, rank, processes, pool
        self._replay = replay or Replay(torch.empty(0, dtype=torch.long), 1.0)
        self._others = torch.ones(len(lengths_N), dtype=torch.bool).index_fill(0, self._replay.rows, False).nonzero()

    @property
    def rows(self) -> int:
        """How many rows an epoch deals."""
        return len(self._others) + self._replay.count

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        drawn = self._replay.rows[torch.randperm(len(self._replay.rows), generator=generator)[: self._replay.count]]
        rows_N = torch.cat([self._others[:, 0], drawn])
        order_N, bounds = rows_N[torch.randperm(self.rows, generator=generator)], self._bounds()
        if self.pool is not None:
            order_N = self._sort(order_N, self.pool)
            bounds = [bounds[step] for step in torch.randperm(len(bounds), generator=generator).tolist()]
        for start, stop in bounds:
            shares = order_N[start:stop].tensor_split(self.parts * self.processes)
            for part in range(self.parts):
                yield shares[part * self.processes + self.rank].tolist()

    def _sort(self, order_N: Tensor, pool: int) -> Tensor:
        """Sort the rows of each pool by length; equal ones stay as drawn."""
        pools = order_N.split(pool * self.batch_size)
        return torch.cat([each[self.lengths_N[each].argsort(stable=True)] for each in pools])

    def __len__(self) -> int:
        return self.parts * len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        """Return where steps start and stop; rows too few for all parts of a last step join the one before."""
        starts = list(range(0, self.rows, self.batch_size))
        if len(starts) > 1 and self.rows - starts[-1] < self.parts * self.processes:
            starts.pop()
        return list(zip(starts, [*starts[1:], self.rows], strict=True))
