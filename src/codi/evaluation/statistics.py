"""How sure a measured number is. Knows numbers only, no task and no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
