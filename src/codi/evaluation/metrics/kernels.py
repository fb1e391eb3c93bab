"""Kernel distance between two sets of features (KID: Bińkowski et al., 2018). Knows no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codi.evaluation.metrics.rows import require_finite
from codi.evaluation.statistics import Interval, normal_interval

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]

_SAME = 1e-9
"""Of the kernel; subsets that differ by less are of rows that are all equal."""

_LENGTH_TOLERANCE = 1e-2
"""How far from 1 the lengths of embeddings are that were divided by their length."""

_LOOKED_AT = 1000
"""Rows by which it is decided whether features have length 1."""


@dataclass(frozen=True)
class KernelDistance:
    """The mean over subsets, how far subsets differ (a deviation), and a 95 % interval.

    There is no interval where the subsets are all that there is, or where all of them agree.
    """

    value: float
    deviation: float
    ci95: Interval | None


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (x·y / D + 1)³ for all pairs (n, m) of rows (n, D) and (m, D)."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def squared_mmd(x: np.ndarray, y: np.ndarray, kernel: Kernel = cubic_kernel) -> float:
    """Return the unbiased squared maximum mean discrepancy of rows (n, D) and (m, D).

    Being unbiased it is 0 on average for equal distributions, and so may be a little negative.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    n, m = len(x), len(y)
    _require_two(n, m)
    among_x, among_y = kernel(x, x), kernel(y, y)
    within_x = (among_x.sum() - np.trace(among_x)) / (n * (n - 1))
    within_y = (among_y.sum() - np.trace(among_y)) / (m * (m - 1))
    return float(within_x + within_y - 2.0 * kernel(x, y).mean())


def _require_two(n: int, m: int) -> None:
    if min(n, m) < 2:
        raise ValueError(f"{n} and {m} samples; give at least 2 on both sides")


def _scale(*sets: np.ndarray) -> float:
    """Return what to multiply sets of rows (n, D) by: √D for embeddings of length 1, else 1.

    √D is about the length of features whose variances are 1. Divided by D, a product of two
    embeddings of length 1 is so small that the cubic kernel is nearly a straight line, and sees
    little but means. The median decides, as one row in a thousand may be damaged.
    """
    medians = [np.median(np.linalg.norm(rows[:_LOOKED_AT], axis=1)) for rows in sets]
    of_length_1 = np.abs(np.array(medians) - 1.0).max() <= _LENGTH_TOLERANCE
    return float(sets[0].shape[1] ** 0.5) if of_length_1 else 1.0


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Return KID: the mean of `squared_mmd` over random subsets of rows a (n, D) and b (m, D).

    The interval is normal, and its error is that of delete-d subsampling (Shao and Wu, 1989):
    subsets drawn without replacement share rows, so that the variance between those of s out of n
    rows is only 1 - s/n of what s rows have; that of all n rows is s/n of the latter. The subsets
    are a sample themselves, whose mean has an error of its own. It holds for a statistic whose
    variance falls as 1/n, which KID's does where the distributions differ; where they are equal it
    falls faster, and the interval is too wide. For two lengths the shorter one counts.

    Args:
        a: features, which may lie on disk; only subsets are read. Embeddings of length 1 on both
            sides are lengthened to √D first.
        b: those of the other set.
        subsets: how many.
        size: rows of each, at most half of what there is: the spread of subsets that are nearly the
            whole would be nothing.
        seed: of the draws.

    Raises:
        ValueError: features of two widths, fewer than two rows on a side, or numbers that are not
            finite.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features of widths {a.shape[1]} and {b.shape[1]}; use one extractor for both"
        )
    _require_two(len(a), len(b))
    rng = np.random.default_rng(seed)
    size = max(min(size, len(a) // 2, len(b) // 2), 2)
    scale = _scale(a, b)
    found, largest = [], 0.0
    for _ in range(subsets):
        x, y = (
            scale * rows[np.sort(rng.choice(len(rows), size, replace=False))].astype(np.float64)
            for rows in (a, b)
        )
        require_finite(x)
        require_finite(y)
        found.append(squared_mmd(x, y))
        largest = max(largest, float((x * x).mean()), float((y * y).mean()))
    value = float(np.mean(found))
    deviation = float(np.std(found))
    share = size / min(len(a), len(b))
    if share >= 1.0 or deviation <= _SAME * (largest + 1.0) ** 3:
        return KernelDistance(value, deviation, None)
    error = deviation * (share / (1.0 - share) + 1.0 / subsets) ** 0.5
    return KernelDistance(value, deviation, normal_interval(value, error))
