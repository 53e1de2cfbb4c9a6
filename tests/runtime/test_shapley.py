"""Shapley values: textbook games, and what defines them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.runtime.shapley import coalitions, shapley

PLAYERS = ["text", "image", "audio"]


def test_all_sets_are_asked_and_none_comes_first():
    found = list(coalitions(PLAYERS))
    assert found[0] == frozenset()
    assert len(set(found)) == len(found) == 8


def test_the_glove_game_is_shared_as_in_the_textbooks():
    """One holds a left glove, two a right one, and a pair is worth 1: 4/6, 1/6 and 1/6."""
    worth = {S: np.array([float("text" in S and len(S) > 1)]) for S in coalitions(PLAYERS)}
    found = shapley(worth, PLAYERS)
    assert [found[name][0] for name in PLAYERS] == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8), st.lists(st.floats(-5, 5), min_size=8, max_size=8))
def test_shares_add_up_and_games_add_up(one: list[float], other: list[float]):
    sets = list(coalitions(PLAYERS))
    first, second = ({S: np.array([value]) for S, value in zip(sets, game, strict=True)} for game in (one, other))
    shares = shapley(first, PLAYERS)
    whole = first[frozenset(PLAYERS)] - first[frozenset()]
    assert sum(shares.values()) == pytest.approx(whole, abs=1e-9)
    both = shapley({S: first[S] + second[S] for S in sets}, PLAYERS)
    for name, share in shapley(second, PLAYERS).items():
        assert both[name] == pytest.approx(shares[name] + share, abs=1e-9)


def test_who_changes_nothing_gets_nothing():
    worth = {S: np.array([3.0 * ("text" in S) - 1.0 * ("image" in S)]) for S in coalitions(PLAYERS)}
    found = shapley(worth, PLAYERS)
    assert [found[name][0] for name in PLAYERS] == pytest.approx([3, -1, 0])
