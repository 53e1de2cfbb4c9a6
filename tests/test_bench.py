"""The benchmark's sides train what params.yaml has, so that it does not break unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.honesty import try_twice
from benchmarks.training import MEMBER, recipe_of
from fuseline import config
from fuseline.runtime.predictor import Row

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("frozen", [False, True])
def test_the_timed_member_is_that_of_params_without_what_others_do_not_do(frozen: bool) -> None:
    params = config.load(ROOT / "params.yaml")
    given, timed = params.members.fusions[MEMBER], recipe_of(params, 3, frozen)
    assert (timed.epochs, timed.patience, timed.augment.given()) == (3, None, [])
    assert timed.batch_size == given.batch_size
    assert timed.rates == (dict.fromkeys(given.modalities) if frozen else given.rates)


def test_a_bundle_is_set_against_itself(bundle: Path, rows: list[Row]) -> None:
    conditions = config.load(ROOT / "params.yaml").benchmark.model_copy(update={"batch_sizes": [2], "threads": 1})
    found = try_twice(bundle, rows, conditions, trials=2, calls=3)
    assert 0 <= found["batch_2"]["false_differences"] <= 1
    assert 0 <= found["batch_2"]["valid_trials"] <= 2
