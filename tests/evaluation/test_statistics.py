"""Intervals against closed forms, and that they hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codi.evaluation.statistics import NORMAL_95, bootstrap_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_that_of_the_literature(successes: int, n: int, low: float, high: float) -> None:
    # Newcombe, 1998, Table I, method 3
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (3, 7), (50, 100), (200, 200)])
def test_wilson_ends_solve_their_equation(successes: int, n: int) -> None:
    share = successes / n
    for end in wilson_interval(successes, n):
        distance = abs(share - end)
        assert distance == pytest.approx(NORMAL_95 * math.sqrt(end * (1 - end) / n), abs=1e-9)


def test_wilson_mirrors_and_narrows() -> None:
    low, high = wilson_interval(3, 10)
    assert wilson_interval(7, 10) == pytest.approx((1 - high, 1 - low))
    widths = [np.diff(wilson_interval(0.3 * n, n))[0] for n in (10, 100, 1000)]
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_the_impossible(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


def test_bootstrap_of_a_mean_is_its_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    reach = NORMAL_95 * values.std() / math.sqrt(len(values))
    low, high = bootstrap_interval(values, resamples=4000)
    assert low == pytest.approx(values.mean() - reach, abs=0.03)
    assert high == pytest.approx(values.mean() + reach, abs=0.03)


def test_bootstrap_of_a_median_holds_it_and_of_a_constant_is_that() -> None:
    values = np.random.default_rng(1).exponential(1.0, 200)
    low, high = bootstrap_interval(values, np.median)
    assert low <= np.median(values) <= high
    assert bootstrap_interval([4.0] * 9) == (4.0, 4.0)


def test_bootstrap_repeats_itself_and_refuses_nothing() -> None:
    values = [0.0, 1.0, 5.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])
