"""Fréchet distance between two sets of features, each taken for a Gaussian.

FID (Inception), FVD (I3D), FAD (VGGish) and FD (PANNs) are this one distance over the features of
different networks. Statistics accumulate over batches and merge, so that any number of samples fits
in memory. Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from codi.evaluation.metrics.rows import chunks, require_finite
from codi.evaluation.statistics import Interval, normal_interval

_SAME = float(np.finfo(np.float32).eps)
"""Of the length of rows, which come in single precision; what differs by less is equal."""


@dataclass
class GaussianStatistics:
    """Mean and covariance of rows that come in batches, in double precision.

    Deviations are summed around the running mean (Chan, Golub and LeVeque, 1979), so that features
    far from zero lose no digits.

    Attributes:
        width: D, columns of the rows.
        weight: number of rows so far.
        mean: their mean (D,).
        scatter: sum of the outer products of their deviations (D, D).
    """

    width: int
    weight: float = 0.0
    mean: np.ndarray = field(init=False)
    scatter: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Start with no rows."""
        self.mean = np.zeros(self.width)
        self.scatter = np.zeros((self.width, self.width))

    def add(self, rows: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take in rows (n, D), each as often as `weights` (n,) says; once by default.

        Raises:
            ValueError: rows of another width, or numbers that are not finite.
        """
        x = np.asarray(rows, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(f"features of shape {x.shape}; expected (n, {self.width})")
        require_finite(x)
        w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
        total = float(w.sum())
        if total == 0.0:
            return
        batch = GaussianStatistics(self.width)
        batch.weight, batch.mean = total, w @ x / total
        deviations = x - batch.mean
        batch.scatter = deviations.T @ (deviations * w[:, None])
        self.merge(batch)

    def merge(self, other: GaussianStatistics) -> None:
        """Take in all rows that `other` has seen."""
        total = self.weight + other.weight
        if not other.weight:
            return
        step = other.mean - self.mean
        share = other.weight / total
        self.scatter += other.scatter + self.weight * share * np.outer(step, step)
        self.mean = self.mean + share * step
        self.weight = total

    @property
    def covariance(self) -> np.ndarray:
        """Return the unbiased covariance (D, D).

        Raises:
            ValueError: fewer than two rows.
        """
        if self.weight < 2:
            raise ValueError(f"{self.weight:.0f} samples have no covariance; give at least 2")
        return self.scatter / (self.weight - 1.0)

    def factor(self) -> np.ndarray:
        """Return A (D, r) with A Aᵀ the covariance: directions without variance are left out."""
        values, vectors = np.linalg.eigh(self.covariance)
        kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])


def gaussian_of(rows: np.ndarray, weights: np.ndarray | None = None) -> GaussianStatistics:
    """Return the statistics of rows (n, D), which may lie on disk, read a chunk at a time.

    Rows (n, P, D) are P rows of each of n samples, and `weights` (n,) are those of samples.
    """
    found = GaussianStatistics(rows.shape[-1])
    pieces = rows.shape[1] if rows.ndim == 3 else 1
    for chunk in chunks(len(rows)):
        own = None if weights is None else np.repeat(weights[chunk], pieces)
        found.add(rows[chunk].reshape(-1, rows.shape[-1]), own)
    return found


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Return |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) (Dowson and Landau, 1982).

    The last trace is the sum of the singular values of AᵀB, where Σ_a = AAᵀ and Σ_b = BBᵀ: real and
    never more than the rest, whatever the rank, where a matrix square root may turn complex.

    Raises:
        ValueError: features of two widths, or fewer than two rows on a side.
    """
    if a.width != b.width:
        raise ValueError(f"features of widths {a.width} and {b.width}; use one extractor for both")
    left, right = a.factor(), b.factor()
    shared = np.linalg.svd(left.T @ right, compute_uv=False).sum()
    step = a.mean - b.mean
    spread = float((left**2).sum() + (right**2).sum() - 2.0 * shared)
    return float(step @ step) + max(spread, 0.0)


def frechet_interval(
    a: np.ndarray, b: np.ndarray, value: float, resamples: int = 20, seed: int = 0
) -> Interval | None:
    """Return a 95 % interval of the distance `value` between rows a (n, ..., D) and b (m, ..., D).

    It is of what n and m rows have on average, which is more than what endless rows would have.
    Its width is the bootstrap's, over both sets. Its middle is `value`: a set drawn with
    replacement is less varied than the set itself, so that the distances of resamples are too
    large, all by about as much, and their percentiles would miss the value. One sample, whose
    pieces may well have a covariance, has no interval (None), and neither have two sets of equal
    rows, which do not say how far they spread.
    """
    if min(len(a), len(b)) < 2:
        return None
    rng = np.random.default_rng(seed)
    found, length = [], 0.0
    for _ in range(resamples):
        both = [gaussian_of(rows, _drawn(rng, len(rows))) for rows in (a, b)]
        found.append(frechet_distance(*both))
        length = max(length, *(float(np.linalg.norm(one.mean)) for one in both))
    error = float(np.std(found, ddof=1))
    return normal_interval(value, error, least=0.0) if error > (_SAME * length) ** 2 else None


def _drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return how often each of n rows is drawn when n are drawn with replacement."""
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
