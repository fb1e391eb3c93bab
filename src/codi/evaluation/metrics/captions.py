"""How near captions come to those of people: BLEU, ROUGE-L, CIDEr, CIDEr-D.

Candidates and references are lists of words (`codi.evaluation.metrics.words`). Every metric keeps
what each caption contributes, so that intervals resample captions. Knows no tokenizer, no model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]


def grams(words: Words, n: int) -> Grams:
    """Return how often every run of n words occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def require_pairs(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise ValueError unless every candidate has a list of at least one reference."""
    if len(candidates) != len(references) or not candidates or not all(references):
        raise ValueError(
            f"{len(candidates)} captions and references for {len(references)}; "
            "give every caption at least one reference"
        )


# --- BLEU ---


def bleu_counts(candidate: Words, references: Sequence[Words], order: int = 4) -> np.ndarray:
    """Return what BLEU adds up over captions: matches (order), grams (order), both lengths.

    The reference's length is that of the nearest one, of the shorter where two are as near.
    """
    matches, totals = [], []
    for n in range(1, order + 1):
        own = grams(candidate, n)
        most: Grams = Counter()
        for reference in references:
            most |= grams(reference, n)
        matches.append(sum((own & most).values()))
        totals.append(max(len(candidate) - n + 1, 0))
    nearest = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    return np.array([*matches, *totals, len(candidate), nearest], dtype=np.float64)


def bleu_of(counts: np.ndarray) -> float:
    """Return BLEU (Papineni et al., 2002) of the sum of `bleu_counts`; 0 where no gram matches."""
    order = (len(counts) - 2) // 2
    matches, totals = counts[:order], counts[order : 2 * order]
    length, wanted = counts[-2:]
    if not matches.all():
        return 0.0
    brevity = min(1.0 - wanted / length, 0.0)
    return float(np.exp(np.log(matches / totals).mean() + brevity))


def bleu(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4
) -> float:
    """Return BLEU of a whole set of captions, from 0 to 1.

    Raises:
        ValueError: a caption without references.
    """
    require_pairs(candidates, references)
    pairs = zip(candidates, references, strict=True)
    return bleu_of(np.sum([bleu_counts(c, r, order) for c, r in pairs], axis=0))


# --- ROUGE-L ---


def common_length(a: Words, b: Words) -> int:
    """Return the length of the longest sequence of words that both hold in this order."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for j, other in enumerate(b, 1):
            row.append(before[j - 1] + 1 if word == other else max(before[j], row[-1]))
    return row[-1]


def rouge_l(candidate: Words, references: Sequence[Words], beta: float = 1.2) -> float:
    """Return ROUGE-L (Lin, 2004) of one caption, from 0 to 1.

    As in the evaluation of COCO captions, the best precision and the best recall of all references
    are taken, each on its own, and recall weighs `beta`² times as much.
    """
    if not candidate or not any(references):
        return 0.0
    common = [(common_length(candidate, r), len(r)) for r in references if r]
    precision = max(c for c, _ in common) / len(candidate)
    recall = max(c / length for c, length in common)
    if not precision or not recall:
        return 0.0
    return (1.0 + beta**2) * precision * recall / (recall + beta**2 * precision)


# --- CIDEr ---


@dataclass(frozen=True)
class _Weighted:
    """A caption in the space of n-grams: weights and length of each order, and its own length."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    bigrams: int


class ConsensusScorer:
    """CIDEr and CIDEr-D (Vedantam et al., 2015) against the references of a whole set.

    N-grams are weighed by how rare they are among the sets of references, so that scores depend on
    the data set, and a set of one has none: every n-gram is as common as can be.

    Args:
        references: the captions by people, for every item.
        order: longest n-grams.

    Raises:
        ValueError: an item without references.
    """

    def __init__(self, references: Sequence[Sequence[Words]], order: int = 4) -> None:
        require_pairs([r[0] if r else [] for r in references], references)
        self.order = order
        self.log_items = math.log(len(references))
        self.holders: Counter[tuple[str, ...]] = Counter()
        for some in references:
            self.holders.update({g for r in some for n in self._orders for g in grams(r, n)})
        self.references = [[self._weigh(r) for r in some] for some in references]

    @property
    def _orders(self) -> range:
        return range(1, self.order + 1)

    def _weigh(self, words: Words) -> _Weighted:
        weights = [
            {
                gram: count * (self.log_items - math.log(max(self.holders[gram], 1)))
                for gram, count in grams(words, n).items()
            }
            for n in self._orders
        ]
        norms = [math.sqrt(sum(w * w for w in some.values())) for some in weights]
        return _Weighted(weights, norms, max(len(words) - 1, 0))

    def cider(self, candidates: Sequence[Words]) -> np.ndarray:
        """Return CIDEr (n,) of the caption of every item: 10 times the mean cosine.

        Words are compared as they are; the paper stems them first, which the evaluation of COCO
        captions does not.
        """
        return self._scores(candidates, clipped=False, deviation=math.inf)

    def cider_d(self, candidates: Sequence[Words], deviation: float = 6.0) -> np.ndarray:
        """Return CIDEr-D (n,), from 0 to 10: what is published as "CIDEr" of COCO captions.

        Repeated words count at most as often as in the reference, and lengths that differ cost by
        a Gaussian of `deviation` words.
        """
        return self._scores(candidates, clipped=True, deviation=deviation)

    def _scores(self, candidates: Sequence[Words], clipped: bool, deviation: float) -> np.ndarray:
        require_pairs(candidates, self.references)  # type: ignore[arg-type]
        return np.array(
            [
                10.0
                * np.mean([_agreement(self._weigh(c), r, clipped, deviation) for r in references])
                for c, references in zip(candidates, self.references, strict=True)
            ]
        )


def _agreement(own: _Weighted, other: _Weighted, clipped: bool, deviation: float) -> float:
    """Return the mean cosine over orders of n-grams, less for another length."""
    found = 0.0
    for a, b, norm_a, norm_b in zip(
        own.weights, other.weights, own.norms, other.norms, strict=True
    ):
        if norm_a and norm_b:
            shared = sum((min(w, b[g]) if clipped else w) * b[g] for g, w in a.items() if g in b)
            found += shared / (norm_a * norm_b)
    difference = (own.bigrams - other.bigrams) / deviation
    return found / len(own.weights) * math.exp(-0.5 * difference**2)
