"""Exact Shapley values over modalities: what each adds, averaged over all orders in which they could be shown.

Shapley 1953; with M modalities all 2^M coalitions are asked, so nothing is sampled. U units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Coalition = frozenset[str]


def coalitions(players: Sequence[str]) -> Iterator[Coalition]:
    """Yield all sets of players, none of them first."""
    for size in range(len(players) + 1):
        yield from map(frozenset, combinations(players, size))


def shapley(values: Mapping[Coalition, Floats], players: Sequence[str]) -> dict[str, Floats]:
    """Return what each player adds [U]; for each unit these add up to the value of all less that of none.

    Args:
        values: what each coalition is worth, [U] each.
    """
    count = len(players)
    found = {player: np.zeros_like(values[frozenset()], dtype=float) for player in players}
    for player in players:
        for others in coalitions([other for other in players if other != player]):
            weight = factorial(len(others)) * factorial(count - len(others) - 1) / factorial(count)
            found[player] += weight * (values[others | {player}] - values[others])
    return found
