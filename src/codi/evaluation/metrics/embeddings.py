"""How well two media agree by their embeddings: CLIPSIM, CLAP score, SIM, and retrieval.

Embeddings come from aligned encoders, row i of one belonging to row i of the other. Knows no
encoder and no modality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from codi.evaluation.metrics.rows import by_chunks, require_finite
from codi.evaluation.statistics import Interval, wilson_interval


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, D) at length 1; a row of zeros stays."""
    x = np.asarray(rows, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine (n,) of each pair of rows (n, D).

    It is SIM (CoDi, Eq. 4) for the prompt encoders of two modalities, and CLAP score for CLAP's.

    Raises:
        ValueError: two shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"embeddings of shapes {a.shape} and {b.shape}; pair them, in one space")
    return by_chunks(lambda x, y: (unit(x) * unit(y)).sum(axis=-1), a, b)


def clipsim(text: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the mean cosine (n,) of a text (n, D) with the frames (n, F, D) of its clip.

    CLIPSIM of Wu et al. (2021, GODIVA), as a plain cosine: not times 100, not cut off at 0.
    """
    return by_chunks(
        lambda x, y: (unit(x)[:, None] * unit(y)).sum(axis=-1).mean(axis=1), text, frames
    )


def frame_consistency(frames: np.ndarray) -> np.ndarray:
    """Return the mean cosine (n,) of each frame (n, F, D) of a clip with the next."""

    def consistency(some: np.ndarray) -> np.ndarray:
        x = unit(some)
        return np.asarray((x[:, :-1] * x[:, 1:]).sum(axis=-1).mean(axis=1))

    return by_chunks(consistency, frames)


@dataclass(frozen=True)
class Recall:
    """How often the right one is among the first k, its interval, and what chance gives.

    `hits` (n,) are what it is the mean of, as `found_within`.
    """

    k: int
    value: float
    chance: float
    ci95: Interval
    hits: np.ndarray = field(compare=False, repr=False)


def found_within(
    queries: np.ndarray,
    targets: np.ndarray,
    ks: Sequence[int],
    matches: np.ndarray | None = None,
) -> np.ndarray:
    """Return (len(ks), n): how sure a right target is among the first k of all for query i.

    It is 0 or 1, or between where targets are exactly as near: any order of those is as likely, so
    that encoders which tell nothing apart come out at chance.

    Args:
        queries: (n, D).
        targets: (m, D).
        ks: how many of the nearest are looked at.
        matches: bool (n, m), which targets are right for a query; target i for query i by default.
    """
    q, t = unit(queries), unit(targets)
    right = np.eye(len(q), dtype=bool) if matches is None else matches
    found = np.empty((len(ks), len(q)))
    for i, row in enumerate(q):
        near = t @ row
        best = near[right[i]].max()
        before, level = int((near > best).sum()), near == best
        rights = int((level & right[i]).sum())
        found[:, i] = [_drawn(k - before, rights, int(level.sum())) for k in ks]
    return found


def chance_within(matches: np.ndarray, ks: Sequence[int]) -> list[float]:
    """Return how often a right target is among k drawn at random, for every k.

    Args:
        matches: bool (n, m), as in `found_within`.
        ks: how many are drawn.
    """
    m = matches.shape[1]
    return [float(np.mean([_drawn(k, int(row.sum()), m) for row in matches])) for k in ks]


def _drawn(k: int, rights: int, among: int) -> float:
    """Return the probability that k of `among`, drawn without replacement, hold a right one."""
    k = min(max(k, 0), among)
    return 1.0 - math.comb(among - rights, k) / math.comb(among, k)


def retrieval(
    queries: np.ndarray, targets: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> list[Recall]:
    """Return `Recall` at each k of finding row i of `targets` (n, D) by row i of `queries`.

    Raises:
        ValueError: two shapes, no rows, or numbers that are not finite.
    """
    if queries.shape != targets.shape or not len(queries):
        raise ValueError(f"embeddings of shapes {queries.shape} and {targets.shape}; pair them")
    for rows in (queries, targets):
        require_finite(rows, "embeddings")
    n = len(queries)
    return [
        Recall(k, float(hits.mean()), min(k / n, 1.0), wilson_interval(float(hits.sum()), n), hits)
        for k, hits in zip(ks, found_within(queries, targets, ks), strict=True)
    ]
