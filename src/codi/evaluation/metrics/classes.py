"""What a classifier thinks of generated media: Inception Score and the KL of paired guesses.

Both take what a classifier says of its classes, before its softmax or after it: published networks
differ, and `log_probabilities`, which both begin with, tells the two apart. Knows no network and no
modality.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from codi.evaluation.metrics.rows import by_chunks, chunks, require_finite
from codi.evaluation.statistics import Interval, normal_interval

_SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may add up: a softmax in half precision is as far."""

_ENOUGH = 32
"""Scores that do not all lie from 0 to 1 by chance; of fewer a sigmoid is not suspected."""

_SAME = 1e-9
"""Deviation of resampled scores below which all guesses count as the same."""


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return log p(y|x), float64 (n, classes), of a classifier's scores or probabilities.

    Rows that are nowhere negative and all add up to 1 are probabilities, and their logarithm is
    taken, with 0 as the least number above it; all else are scores before the softmax. A second
    softmax would make all guesses alike, and an Inception Score 1, without a word. So it would of
    scores that all lie from 0 to 1 and do not add up: those are a sigmoid's, of classes that do not
    exclude each other, and are refused.

    Args:
        scores: (n, classes).

    Raises:
        ValueError: scores that are not finite, or a sigmoid's.
    """
    return _log(scores, _are_probabilities(scores))


def _are_probabilities(scores: np.ndarray) -> bool:
    within, whole = len(scores) > 0, True
    for rows in chunks(len(scores)):
        x = np.asarray(scores[rows], dtype=np.float64)
        within = within and bool(((x >= 0.0) & (x <= 1.0 + _SUM_TOLERANCE)).all())
        whole = whole and not (np.abs(x.sum(axis=1) - 1.0) > _SUM_TOLERANCE).any()
        if not within:
            return False
    if within and not whole and np.size(scores) >= _ENOUGH:
        raise ValueError(
            "all scores lie from 0 to 1 and do not add up to 1, as a sigmoid's; give a network "
            "whose scores are those before it, or a softmax's"
        )
    return whole


def _log(scores: np.ndarray, probabilities: bool) -> np.ndarray:
    x = np.asarray(scores, dtype=np.float64)
    require_finite(x, "scores")
    if probabilities:
        x = np.log(np.maximum(x, np.finfo(np.float64).tiny))
    found: np.ndarray = log_softmax(x, axis=1)
    return found


def inception_score(scores: np.ndarray, splits: int = 1) -> float:
    """Return exp of the mean KL of p(y|x) from p(y) over samples (Salimans et al., 2016).

    From 1, when every sample gets the same guess, to the number of classes.

    Args:
        scores: (n, classes), before the softmax or after it; they may lie on disk, and are read a
            chunk at a time.
        splits: into how many parts samples are cut, in order; the mean over parts is returned.

    Raises:
        ValueError: fewer samples than parts, or scores as `log_probabilities` refuses them.
    """
    n = len(scores)
    if n < splits or splits < 1:
        raise ValueError(f"{n} samples in {splits} parts; give a sample for every part")
    return float(_scores(scores, _counts(np.arange(n), splits)).mean())


def inception_interval(
    scores: np.ndarray, value: float, splits: int = 1, resamples: int = 100, seed: int = 0
) -> Interval | None:
    """Return a 95 % interval of the Inception Score `value` of the same scores and splits.

    It is of what as many samples score on average, which is less than what endless ones would.
    Its width is the bootstrap's; all resamples are scored in one pass over the rows. Guesses that
    are all the same, such as one sample's, do not say how far they spread, and have none (None).
    """
    rng, n = np.random.default_rng(seed), len(scores)
    counts = np.empty((resamples, splits, n), dtype=np.uint16)
    for drawn in counts:
        drawn[:] = _counts(rng.integers(n, size=n), splits)
    found = _scores(scores, counts.reshape(-1, n)).reshape(resamples, splits).mean(axis=1)
    error = float(np.std(found, ddof=1))
    return normal_interval(value, error, least=1.0) if error > _SAME else None


def _counts(drawn: np.ndarray, splits: int) -> np.ndarray:
    """Return how often each sample is in each part (splits, n) of those drawn, cut in order."""
    parts = np.array_split(drawn, splits)
    return np.stack([np.bincount(part, minlength=len(drawn)) for part in parts]).astype(np.uint16)


def _scores(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the score (m,) of each of several sets, made of samples as often as `counts` says.

    The mean KL is the mean of p log p, less the same of the mean guess: both are sums over samples.

    Args:
        scores: (n, classes).
        counts: (m, n).
    """
    probabilities = _are_probabilities(scores)
    guess, certainty = np.zeros((len(counts), scores.shape[1])), np.zeros(len(counts))
    for rows in chunks(len(scores)):
        log_p = _log(scores[rows], probabilities)
        p, often = np.exp(log_p), counts[:, rows].astype(np.float64)
        guess += often @ p
        certainty += often @ (p * log_p).sum(axis=1)
    size = counts.sum(axis=1, dtype=np.float64)
    mean = guess / size[:, None]
    log_mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    found: np.ndarray = np.exp(certainty / size - (mean * log_mean).sum(axis=1))
    return found


def softmax_kl(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return KL(reference ‖ generated) (n,) of the classifier's guesses about each pair.

    The direction is that of audio generation's evaluations (Kreuk et al., 2023; Liu et al., 2023).
    The code of the latter adds 1e-6 to the guesses about what was made, which bounds the KL of a
    pair near 14; here nothing is added, so that pairs alike have exactly 0.

    Args:
        generated: scores (n, classes) of what was made, before the softmax or after it.
        reference: the same of the true media of the same prompts.

    Raises:
        ValueError: two shapes, no pairs, or scores as `log_probabilities` refuses them.
    """
    if generated.shape != reference.shape:
        raise ValueError(f"scores of shapes {generated.shape} and {reference.shape}; pair them")
    if not len(generated):
        raise ValueError("no scores to compare; give at least one pair")
    made, true = _are_probabilities(generated), _are_probabilities(reference)

    def kl(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        log_q, log_p = _log(generated, made), _log(reference, true)
        return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))

    return by_chunks(kl, generated, reference)
