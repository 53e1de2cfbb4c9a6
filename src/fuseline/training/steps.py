"""Which rows each step sees, and in which parts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class Steps(Sampler[list[int]]):
    """Deal the rows of an epoch, in an order of its own, to steps, and each step's rows to equal parts.

    The same rows make a step however many processes there are and however many parts each takes; a process sees its
    own parts only. Parts differ by one row at most.

    Args:
        rows: how many there are.
        batch_size: rows per step.
        seed: what the orders follow from, with the epoch.
        parts: of a step, in each process.
        rank: this process.
        processes: how many share a step.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, parts: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0
        self.parts, self.rank, self.processes = parts, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.rows, generator=generator)
        for start, stop in self._bounds():
            shares = order[start:stop].tensor_split(self.parts * self.processes)
            for part in range(self.parts):
                yield shares[part * self.processes + self.rank].tolist()

    def __len__(self) -> int:
        return self.parts * len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        """Return where steps start and stop; rows too few for all parts of a last step join the one before."""
        starts = list(range(0, self.rows, self.batch_size))
        if len(starts) > 1 and self.rows - starts[-1] < self.parts * self.processes:
            starts.pop()
        return list(zip(starts, [*starts[1:], self.rows], strict=True))
