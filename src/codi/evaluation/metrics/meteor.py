"""METEOR without its Java program: words and stems, no synonyms (Banerjee and Lavie, 2005).

Published scores of captions are METEOR 1.5, which also matches WordNet's synonyms and a table of
paraphrases, tells content words from function words, and has other weights: that is
`codi.evaluation.metrics.java.meteor_15`. The two numbers are not comparable, and results name them
"meteor_stem" and "meteor".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from codi.evaluation.metrics.captions import Words
from codi.evaluation.metrics.stemming import stem

Pair = tuple[int, int]


def aligned(candidate: Words, reference: Words) -> list[Pair]:
    """Return which word goes with which: equal ones first, then those of one stem.

    Of several equal words the last free ones are taken, from the end of the caption.
    """
    pairs: list[Pair] = []
    rest_a, rest_b = list(enumerate(candidate)), list(enumerate(reference))
    stages: tuple[Callable[[str], str], ...] = (str, stem)
    for form in stages:
        rest_a = [(i, form(word)) for i, word in rest_a]
        rest_b = [(j, form(word)) for j, word in rest_b]
        for i, word in reversed(rest_a.copy()):
            j = next((j for j, other in reversed(rest_b) if other == word), None)
            if j is not None:
                pairs.append((i, j))
                rest_a.remove((i, word))
                rest_b.remove((j, word))
    return sorted(pairs)


def runs(pairs: Sequence[Pair]) -> int:
    """Return into how many runs, unbroken on both sides, sorted pairs fall."""
    steps = itertools.pairwise(pairs)
    return bool(pairs) + sum((c - a, d - b) != (1, 1) for (a, b), (c, d) in steps)


def meteor_stem(
    candidate: Words,
    references: Sequence[Words],
    alpha: float = 0.9,
    beta: float = 3.0,
    gamma: float = 0.5,
) -> float:
    """Return the score of one caption against its best reference, from 0 to 1.

    Args:
        candidate: its words.
        references: those of captions by people.
        alpha: weight of recall beside precision.
        beta: power of the share of broken runs.
        gamma: what broken runs cost at most.
    """
    return max((_score(candidate, r, alpha, beta, gamma) for r in references), default=0.0)


def _score(a: Words, b: Words, alpha: float, beta: float, gamma: float) -> float:
    pairs = aligned(a, b)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(a), len(pairs) / len(b)
    mean = precision * recall / (alpha * precision + (1.0 - alpha) * recall)
    return mean * (1.0 - gamma * (runs(pairs) / len(pairs)) ** beta)
