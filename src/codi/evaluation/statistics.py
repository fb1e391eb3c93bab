"""How sure a measured number is. Knows numbers only, no task and no model.

Where observations are all equal, every resample is the same and a bootstrap would claim certainty:
there intervals come from the range of the values instead, or there is none. `mean_interval`,
`grouped_interval`, `crossed_interval`, `median_interval`, `paired_interval` and `change_interval`
are what reports use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

Interval = tuple[float, float]

NORMAL_95 = 1.959963984540054
"""Half the width of the interval that holds 95 % of a normal distribution, in deviations."""


def wilson_interval(successes: float, n: int, z: float = NORMAL_95) -> Interval:
    """Return the score interval of a proportion (Wilson, 1927).

    Unlike the mean plus and minus its error it stays within [0, 1], and is honest at 0 and 1.

    Args:
        successes: from 0 to `n`; a sum of shares works as well.
        n: number of trials.
        z: deviations of a normal distribution, 95 % by default.

    Raises:
        ValueError: no trial, or successes that `n` trials cannot have.

    >>> [round(end, 4) for end in wilson_interval(10, 10)]
    [0.7225, 1.0]
    """
    if n < 1 or not 0.0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials; give 0 <= successes <= n, n >= 1")
    share = successes / n
    scale = 1.0 + z * z / n
    middle = (share + z * z / (2.0 * n)) / scale
    reach = z * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / scale
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., Any] = np.mean,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the 95 % percentile interval of a statistic of `values` (n,) (Efron, 1979).

    Args:
        values: independent observations.
        statistic: of an array along `axis`, such as `numpy.mean` or `numpy.median`.
        resamples: how many times n values are drawn, with replacement.
        seed: of the draws; the same interval comes out every time.

    Raises:
        ValueError: no values.
    """
    observed = np.asarray(values, dtype=float)
    if not len(observed):
        raise ValueError("no values to resample; give at least one")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):  # one at a time: all of them would not fit for 50,000 values
        rows = rng.integers(len(observed), size=len(observed))
        found.append(statistic(observed[rows], axis=-1))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


_ROUNDING = 1e-9
"""Of values; what differs by less is equal."""


def mean_interval(
    values: Sequence[float] | np.ndarray, least: float = -math.inf, most: float = math.inf
) -> Interval | None:
    """Return the 95 % interval of the mean of independent `values` (n,): the bootstrap's.

    Of equal values it is Wilson's interval over the range from `least` to `most`, of which the mean
    is a share: no values in a range vary more than successes and failures at its ends. Where fewer
    than six values are not as all others, it is as wide as both. Without a range equal values say
    nothing about their spread, and there is no interval (None), nor is there of one value.

    >>> [round(end, 3) for end in mean_interval([0.0] * 100, 0.0, 1.0) or ()]
    [0.0, 0.037]
    """
    observed = np.asarray(values, dtype=float)
    if not len(observed):
        return None
    odd = _odd(observed)
    found = [bootstrap_interval(observed)] if odd else []
    if odd < _FEW and math.isfinite(most - least):
        found.append(_of_share(float(observed.mean()), len(observed), least, most))
    return _hull(found) if found else None


def grouped_interval(
    values: np.ndarray, least: float = -math.inf, most: float = math.inf
) -> Interval | None:
    """Return the 95 % interval of the mean over columns of `values` (n, k) of each one's own mean.

    Rows are independent, what is in one of them is not: rows are resampled whole. Where a row says
    nothing of a column it has NaN. What `mean_interval` says of equal values holds for the means of
    rows.
    """
    known = np.isfinite(values)
    values, known = values[known.any(axis=1)], known[known.any(axis=1)]
    if not len(values):
        return None
    filled = np.where(known, values, 0.0)

    def mean(rows: np.ndarray) -> float:
        count = known[rows].sum(axis=0)
        seen = count > 0  # a column that no drawn row says anything of
        return float(np.mean(filled[rows].sum(axis=0)[seen] / count[seen]))

    n = len(values)
    odd = _odd(filled.sum(axis=1) / known.sum(axis=1))
    found = [resampled_interval(n, mean)] if odd else []
    if odd < _FEW and math.isfinite(most - least):
        found.append(_of_share(mean(np.arange(n)), n, least, most))
    return _hull(found) if found else None


def crossed_interval(
    values: np.ndarray,
    of_items: Interval | None,
    least: float = -math.inf,
    most: float = math.inf,
) -> Interval | None:
    """Return the 95 % interval of the mean of `values` (n, k) of n items in each of k runs.

    Both are drawn from more that there could be. How far the means of runs may be off is Student's
    (t of k - 1 degrees of freedom), how far those of items the normal one's; the two reaches are
    squared and added, as in modified large-sample intervals (Graybill and Wang, 1980). What runs
    and items have together counts in both, so that it is wide rather than narrow: two runs say next
    to nothing, three something. Where a run says nothing of an item it has NaN.

    Args:
        values: of items in runs.
        of_items: the interval of the mean of the items' means, as of one run; the result is never
            narrower.
        least: the least that a mean can be.
        most: the greatest.
    """
    known = np.isfinite(values)
    values = values[known.any(axis=1)][:, known.any(axis=0)]
    n, k = values.shape
    if k < 2 or not n:
        return of_items
    means = np.nanmean(values, axis=0)
    error = math.sqrt(float(means.var(ddof=1)) / k)
    if error == 0.0:
        return of_items
    spread = float(np.nanmean(values, axis=1).std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    reach = math.hypot(float(stdtrit(k - 1, 0.975)) * error, NORMAL_95 * spread)
    mean = float(means.mean())
    wide = max(mean - reach, least), min(mean + reach, most)
    return wide if of_items is None else _hull([wide, of_items])


def _of_share(mean: float, n: int, least: float, most: float) -> Interval:
    """Return Wilson's interval of a mean of n values between two ends."""
    width = most - least
    share = min(max((mean - least) / width, 0.0), 1.0)
    low, high = wilson_interval(share * n, n)
    return least + width * low, least + width * high


_FEW = 6
"""Of fewer values that are not as the others, resamples without any are not rare enough."""


def _odd(observed: np.ndarray) -> int:
    """Return how many values are not as the commonest one."""
    near = np.round(observed / max(_ROUNDING * float(np.abs(observed).max()), 1e-300))
    return len(observed) - int(np.unique(near, return_counts=True)[1].max())


def _hull(intervals: Sequence[Interval]) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def change_interval(change: Sequence[float] | np.ndarray) -> Interval:
    """Return the 95 % interval of the mean of paired changes (n,) of values from 0 to 1.

    Of right and wrong it is Tango's, as `paired_interval`; of shares the bootstrap's, but never
    narrower than Tango's of as many pairs that all stay.

    >>> change_interval([0.0] * 100) == paired_interval(0, 0, 100)
    True
    """
    observed = np.asarray(change, dtype=float)
    if np.isin(observed, (-1.0, 0.0, 1.0)).all():
        gained, lost = int((observed > 0).sum()), int((observed < 0).sum())
        return paired_interval(gained, lost, len(observed))
    mean = float(observed.mean())
    low, high = paired_interval(0, 0, len(observed))
    low, high = _hull([bootstrap_interval(observed), (mean + low, mean + high)])
    return max(low, -1.0), min(high, 1.0)


_LEAST_FOR_MEDIAN = 6
"""Of fewer values the median lies beyond all of them more than once in 20: 2 * 0.5 ** n."""


def median_interval(values: Sequence[float] | np.ndarray) -> Interval | None:
    """Return the bootstrap's 95 % interval of a median; None of fewer than six values.

    Six equal values and more do say where the median is, unlike the mean.
    """
    return bootstrap_interval(values, np.median) if len(values) >= _LEAST_FOR_MEDIAN else None


def paired_interval(gained: int, lost: int, n: int) -> Interval:
    """Return the 95 % score interval of the difference of two paired shares (Tango, 1998).

    It says something without a discordant pair as well: the difference is within z² / (n + z²).

    Args:
        gained: pairs that are right only in the second of the two.
        lost: pairs that are right only in the first.
        n: number of all pairs.

    Raises:
        ValueError: no pair, or more discordant pairs than pairs.

    >>> [round(end, 3) for end in paired_interval(0, 0, 100)]
    [-0.037, 0.037]
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} pairs; give gained + lost <= n")
    found = (gained - lost) / n

    def outside(difference: float) -> bool:
        """Say whether a true difference would make the found one surprising."""
        half = 2.0 * n - gained + lost
        linear = -gained - lost + half * difference
        root = linear * linear + 8.0 * n * lost * difference * (1.0 - difference)
        share = (math.sqrt(max(root, 0.0)) - linear) / (4.0 * n)  # lost, if that were true
        variance = n * (2.0 * share + difference * (1.0 - difference))
        return abs(n * (found - difference)) > NORMAL_95 * math.sqrt(max(variance, 0.0))

    ends = []
    for end in (-1.0, 1.0):
        inside, beyond = found, end
        for _ in range(60):  # halves, to the last digit
            middle = (inside + beyond) / 2.0
            inside, beyond = (inside, middle) if outside(middle) else (middle, beyond)
        ends.append(inside)
    return ends[0], ends[1]


def normal_interval(value: float, error: float, least: float = -math.inf) -> Interval:
    """Return the 95 % interval of a value with a normal error, cut off at `least`.

    >>> normal_interval(1.0, 1.0, least=0.0)
    (0.0, 2.959963984540054)
    """
    reach = NORMAL_95 * error
    return max(value - reach, least), max(value + reach, least)


def resampled_interval(
    n: int, statistic: Callable[[np.ndarray], float], resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the 95 % percentile interval of a statistic that needs whole samples (Efron, 1979).

    Args:
        n: number of samples.
        statistic: of the samples with the given numbers (n,), drawn with replacement.
        resamples: how many times they are drawn.
        seed: of the draws.

    Raises:
        ValueError: no samples.
    """
    if n < 1:
        raise ValueError("no values to resample; give at least one")
    rng = np.random.default_rng(seed)
    found = [statistic(rng.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
