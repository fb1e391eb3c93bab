"""What a classifier thinks of generated media: Inception Score and the KL of paired guesses.

Both take what a classifier says of its classes, before its softmax or after it: published networks
differ, and `log_probabilities`, which both begin with, tells the two apart. Knows no network and no
modality.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

_SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may add up: a softmax in half precision is as far."""


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Return log p(y|x), float64 (n, classes), of a classifier's scores or probabilities.

    Rows that are nowhere negative and all add up to 1 are probabilities, and their logarithm is
    taken, with 0 as the least number above it; all else are scores before the softmax. A second
    softmax would make all guesses alike, and an Inception Score 1, without a word.

    Args:
        scores: (n, classes).
    """
    x = np.asarray(scores, dtype=np.float64)
    if (x >= 0.0).all() and (np.abs(x.sum(axis=1) - 1.0) <= _SUM_TOLERANCE).all():
        x = np.log(np.maximum(x, np.finfo(np.float64).tiny))
    found: np.ndarray = log_softmax(x, axis=1)
    return found


def inception_score(scores: np.ndarray, splits: int = 1) -> float:
    """Return exp of the mean KL of p(y|x) from p(y) over samples (Salimans et al., 2016).

    From 1, when every sample gets the same guess, to the number of classes.

    Args:
        scores: (n, classes), before the softmax or after it.
        splits: into how many parts samples are cut, in order; the mean over parts is returned.

    Raises:
        ValueError: fewer samples than parts.
    """
    if len(scores) < splits or splits < 1:
        raise ValueError(f"{len(scores)} samples in {splits} parts; give a sample for every part")
    log_p = log_probabilities(scores)
    return float(np.mean([score_of(np.exp(part), part) for part in np.array_split(log_p, splits)]))


def score_of(p: np.ndarray, log_p: np.ndarray) -> float:
    """Return the score of guesses p (n, classes) and their logarithms."""
    mean = p.mean(axis=0)
    log_mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))


def softmax_kl(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return KL(reference ‖ generated) (n,) of the classifier's guesses about each pair.

    The direction is that of audio generation's evaluations (Kreuk et al., 2023; Liu et al., 2023).

    Args:
        generated: scores (n, classes) of what was made, before the softmax or after it.
        reference: the same of the true media of the same prompts.

    Raises:
        ValueError: two shapes.
    """
    if generated.shape != reference.shape:
        raise ValueError(f"scores of shapes {generated.shape} and {reference.shape}; pair them")
    log_q, log_p = log_probabilities(generated), log_probabilities(reference)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
