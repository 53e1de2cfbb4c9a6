"""Intervals, tests and power agree with published numbers and with statsmodels 0.15, whose answers stand here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from fuseline.evaluation.intervals import bound, estimate, holm, mcnemar, power, student, tango, wilson
from fuseline.records import Estimate

Z = float(ndtri(0.975))


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [
        (30, 30, 0.8864866068260311, 1.0),
        (0, 10, 0.0, 0.27753279986288926),
        (81, 263, 0.2552885198782742, 0.36620957698280004),
        (15, 148, 0.06238639953073628, 0.16048724172330803),
        (1, 29, 0.006113214292762667, 0.17175521879320294),
    ],
)
def test_wilsons_interval_is_that_of_statsmodels(right: int, rows: int, low: float, high: float) -> None:
    assert wilson(right / rows, rows, Z) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("better", "worse", "rows", "low", "high", "within"),
    [
        pytest.param(1, 7, 21, -0.517, -0.026, 5e-4, id="Fagerland, Lydersen and Laake 2014: airways"),
        pytest.param(6, 16, 161, -0.1240, -0.0054, 5e-5, id="Fagerland, Lydersen and Laake 2017, chapter 8: response"),
    ],
)
def test_tangos_interval_is_the_published_one(
    better: int, worse: int, rows: int, low: float, high: float, within: float
) -> None:
    assert tango(better, worse, rows, Z) == pytest.approx((low, high), abs=within)


def test_tangos_interval_turns_with_the_sides() -> None:
    low, high = tango(7, 2, 50, Z)
    assert tango(2, 7, 50, Z) == pytest.approx((-high, -low), abs=1e-9)


def test_tangos_bound_is_zero_where_mcnemars_statistic_is_the_quantile() -> None:
    z = (12 - 4) / math.sqrt(12 + 4)
    assert tango(12, 4, 100, z)[0] == pytest.approx(0, abs=1e-9)


def test_two_that_answer_all_rows_alike_may_still_differ_on_others() -> None:
    low, high = tango(0, 0, 300, Z)
    assert high == pytest.approx(Z**2 / (300 + Z**2), abs=1e-6)  # Wilson's bound of no difference in 300 rows
    assert low == pytest.approx(-high, abs=1e-6)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(8, 4, 0.3876953125), (0, 5, 0.0625), (43, 9, 2.0377698612961126e-06), (12, 14, 0.8450189828872681),
     (1, 7, 0.0703125), (6, 16, 0.052478790283203125), (1, 1, 1.0), (0, 0, 1.0)],
)  # fmt: skip
def test_mcnemars_exact_test_is_that_of_statsmodels(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p, rel=1e-9)


def test_holm_asks_most_of_the_clearest() -> None:
    levels = holm([1.0, 3.0, 2.0, -1.0], 0.9)
    assert levels == pytest.approx([1 - 0.1 / 2, 1 - 0.1 / 4, 1 - 0.1 / 3, 0.9])


def test_holm_finds_what_statsmodels_finds() -> None:
    ps = np.array([0.01, 0.04, 0.03, 0.005])  # statsmodels rejects the first and the last at 0.05
    met = 1 - ps >= holm((-ndtri(ps)).tolist(), 0.95)
    clearest_first = np.argsort(ps)
    assert met[clearest_first].tolist() == [True, True, False, True]  # what is met after a failure does not count


def test_an_interval_is_as_wide_as_students_t_of_its_groups_says() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.1, 4000)
    few, many = (estimate(0.5, draws, groups, 0.95) for groups in (5, 5000))
    assert few.standard_error == pytest.approx(0.1 * math.sqrt(5 / 4), rel=0.05)
    assert few.high - few.value == pytest.approx(2.776445 * few.standard_error, rel=1e-6)
    assert many.high - many.value == pytest.approx(1.960439 * many.standard_error, rel=1e-6)


def test_one_group_has_no_interval() -> None:
    found = estimate(0.5, np.full(10, 0.5), 1, 0.95)
    assert (found.low, found.high, bound(found, 0.95, upper=False)) == (None, None, None)


def test_all_rows_right_are_no_certainty() -> None:
    found = estimate(1.0, np.ones(100), 30, 0.95, share=True)
    assert (found.low, found.high) == pytest.approx((wilson(1.0, 30, student(30, 0.975))[0], 1.0))
    assert 0.87 < found.low < 0.89


def test_a_share_of_rows_that_resemble_each_other_is_that_of_fewer_rows() -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.04, 4000)  # sqrt(0.8 * 0.2 / 100)
    assert estimate(0.8, draws, 10_000, 0.95, share=True).effective_rows == pytest.approx(100, rel=0.05)


def gain(error: float, groups: int = 100_000) -> Estimate:
    return Estimate(value=0.0, low=0.0, high=0.0, standard_error=error, groups=groups)


def test_power_is_that_of_a_normal_test() -> None:
    told = power([gain(0.02)], -0.03, 0.95, 0.95, 1000)
    assert told.equal_passes == pytest.approx(0.4424132202501233, abs=1e-4)  # statsmodels: effect 1.5, one-sided 0.05
    assert told.worse == 0.06
    assert told.worse_passes == pytest.approx(0.000834, abs=1e-5)  # beyond -1.5 - 1.645 standard errors
    assert told.visible == pytest.approx((1.959964 + 0.841621) * 0.02, abs=1e-5)


def test_the_rows_that_power_asks_for_have_it() -> None:
    told = power([gain(0.02)], -0.03, 0.95, 0.95, 1000, asked=0.8)
    error = 0.02 * math.sqrt(1000 / told.needed_rows)
    assert power([gain(error)], -0.03, 0.95, 0.95, 1000).equal_passes == pytest.approx(0.8, abs=1e-3)
    assert told.needed_rows == pytest.approx(1000 * ((1.644854 + 0.841621) * 0.02 / 0.03) ** 2, rel=1e-2)


def test_a_rule_without_a_confidence_lets_half_of_the_models_on_its_margin_pass() -> None:
    assert power([gain(0.02)], 0.0, None, 0.95, 1000).equal_passes == 0.5


def test_slices_have_to_pass_together() -> None:
    one, both = (power([gain(0.02)] * count, -0.03, None, 0.95, 1000).equal_passes for count in (1, 2))
    assert both == pytest.approx(one**2)
