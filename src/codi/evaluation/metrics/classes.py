"""What a classifier thinks of generated media: Inception Score and the KL of paired guesses.

Both take the scores before the softmax. Knows no network and no modality.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax


def inception_score(logits: np.ndarray, splits: int = 1) -> float:
    """Return exp of the mean KL of p(y|x) from p(y) over samples (Salimans et al., 2016).

    From 1, when every sample gets the same guess, to the number of classes.

    Args:
        logits: scores (n, classes).
        splits: into how many parts samples are cut, in order; the mean over parts is returned.

    Raises:
        ValueError: fewer samples than parts.
    """
    if len(logits) < splits or splits < 1:
        raise ValueError(f"{len(logits)} samples in {splits} parts; give a sample for every part")
    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
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
        generated: scores (n, classes) of what was made.
        reference: scores (n, classes) of the true media of the same prompts.

    Raises:
        ValueError: two shapes.
    """
    if generated.shape != reference.shape:
        raise ValueError(f"scores of shapes {generated.shape} and {reference.shape}; pair them")
    log_q = log_softmax(np.asarray(generated, dtype=np.float64), axis=1)
    log_p = log_softmax(np.asarray(reference, dtype=np.float64), axis=1)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
