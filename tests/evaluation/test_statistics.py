"""Intervals against closed forms, and that they hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codi.evaluation.statistics import (
    NORMAL_95,
    bootstrap_interval,
    change_interval,
    grouped_interval,
    mean_interval,
    median_interval,
    paired_interval,
    wilson_interval,
)


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


def test_equal_values_are_not_certain() -> None:
    varied = [0.0, 0.25, 0.5, 0.75, 0.8, 0.9, 1.0, 1.0]
    assert mean_interval(varied, 0.0, 1.0) == bootstrap_interval(varied)
    assert mean_interval([1.0] * 20, 0.0, 1.0) == wilson_interval(20, 20)
    low, high = mean_interval([0.0] * 20, -1.0, 1.0) or (0.0, 0.0)
    assert low == pytest.approx(-high)
    assert mean_interval([0.1 + 0.2, 0.3]) is None  # equal but for rounding, without a range
    assert mean_interval([3.0], least=0.0) is None
    assert mean_interval([]) is None


def test_worse_values_never_look_surer() -> None:
    perfect = mean_interval([1.0] * 48, 0.0, 1.0)
    nearly = mean_interval([1.0] * 47 + [2 / 3], 0.0, 1.0)
    assert perfect is not None
    assert nearly is not None
    assert nearly[0] < perfect[0] < nearly[1]
    assert mean_interval([3.0, 3.0, 4.0]) == bootstrap_interval([3.0, 3.0, 4.0])  # no range


def test_rows_of_several_columns_are_resampled_whole() -> None:
    rng = np.random.default_rng(0)
    same = np.repeat(rng.random((60, 1)), 3, axis=1)
    low, high = grouped_interval(same, 0.0, 1.0) or (0.0, 0.0)
    assert (low, high) == pytest.approx(bootstrap_interval(same[:, 0]), abs=0.01)
    free = rng.random((60, 3))
    narrow = grouped_interval(free, 0.0, 1.0) or (0.0, 0.0)
    assert narrow[1] - narrow[0] < 0.75 * (high - low)
    gaps = np.where(rng.random((60, 3)) < 0.5, np.nan, free)
    ends = grouped_interval(gaps, 0.0, 1.0) or (0.0, 0.0)
    assert ends[0] < np.nanmean(gaps, axis=0).mean() < ends[1]
    assert grouped_interval(np.ones((20, 2)), 0.0, 1.0) == wilson_interval(20, 20)
    assert grouped_interval(np.ones((20, 2))) is None
    assert grouped_interval(np.full((3, 2), np.nan), 0.0, 1.0) is None


def test_changes_of_shares_are_no_surer_than_of_right_and_wrong() -> None:
    assert change_interval([1.0, -1.0, 0.0, -1.0]) == paired_interval(1, 2, 4)
    low, high = change_interval([0.0] * 99 + [-0.2])
    stay = paired_interval(0, 0, 100)
    assert low == pytest.approx(-0.002 + stay[0])
    assert high == pytest.approx(-0.002 + stay[1])
    many = np.linspace(-0.5, 0.7, 100)
    assert change_interval(many) == bootstrap_interval(many)


def test_a_median_has_an_interval_from_six_values_on() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([4.0] * 6) == (4.0, 4.0)


def test_paired_shares_are_those_of_the_literature() -> None:
    # Fagerland, Lydersen and Laake, 2014: airway hyper-responsiveness, Tango's interval
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    low, high = paired_interval(7, 1, 21)
    assert (-high, -low) == pytest.approx(paired_interval(1, 7, 21))


@pytest.mark.parametrize("n", [1, 10, 100])
def test_pairs_that_all_agree_leave_room(n: int) -> None:
    reach = NORMAL_95**2 / (n + NORMAL_95**2)
    assert paired_interval(0, 0, n) == pytest.approx((-reach, reach))
    assert paired_interval(n, 0, n) == pytest.approx((1 - 2 * reach, 1.0))
    with pytest.raises(ValueError, match="pairs"):
        paired_interval(n, 1, n)


@pytest.mark.parametrize("shares", [(0.02, 0.01), (0.2, 0.05), (0.01, 0.0)])
def test_paired_intervals_hold_the_truth(shares: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(100, [*shares, 1.0 - sum(shares)], size=400)
    ends = [paired_interval(int(gained), int(lost), 100) for gained, lost, _ in drawn]
    truth = shares[0] - shares[1]
    assert np.mean([low <= truth <= high for low, high in ends]) > 0.92
