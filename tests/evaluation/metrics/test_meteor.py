"""METEOR without Java: known answers, and parity with nltk's on the same words."""

from __future__ import annotations

import pytest

from codi.evaluation.metrics.meteor import aligned, meteor_stem, runs
from codi.evaluation.metrics.stemming import stem
from codi.evaluation.metrics.words import words_of
from tests.evaluation.metrics.sentences import CANDIDATES, REFERENCES

PAIRS = [
    (words_of(c), [words_of(r) for r in some])
    for c, some in zip(CANDIDATES, REFERENCES, strict=True)
]
WORDS = [
    *sorted({w for c, some in PAIRS for words in (c, *some) for w in words}),
    "caresses", "ponies", "agreed", "plastered", "motoring", "conflated", "sized", "hopping",
    "falling", "filing", "happy", "relational", "rationally", "digitizer", "vietnamization",
    "predication", "sensibiliti", "triplicate", "formalize", "goodness", "revival", "adjustment",
    "replacement", "adoption", "effective", "rate", "controlling", "yes", "toy", "syzygy", "a",
]  # fmt: skip


def test_a_copy_is_one_run() -> None:
    words = ["a", "dog", "barks", "at", "night"]
    assert runs(aligned(words, words)) == 1
    assert meteor_stem(words, [words]) == pytest.approx(1.0 - 0.5 / 5**3)


def test_stems_match_and_order_costs() -> None:
    assert meteor_stem(["dogs", "barking"], [["dog", "barks"]]) == pytest.approx(1.0 - 0.5 / 8)
    assert meteor_stem(["b", "a"], [["a", "b"]]) == pytest.approx(0.5)
    assert meteor_stem(["x"], [["y"]]) == 0.0
    assert meteor_stem([], [["y"]]) == 0.0


def test_the_best_reference_counts() -> None:
    one, other = ["a", "cat"], ["a", "dog"]
    assert meteor_stem(other, [one, other]) == meteor_stem(other, [other])


def test_recall_weighs_more() -> None:
    words = ["a", "b", "c", "d"]
    assert meteor_stem(words, [words[:2]]) > meteor_stem(words[:2], [words])


def test_it_agrees_with_nltk() -> None:
    why = "nltk is not installed"
    porter = pytest.importorskip("nltk.stem.porter", reason=why)
    meteor = pytest.importorskip("nltk.translate.meteor_score", reason=why)
    stemmer = porter.PorterStemmer(porter.PorterStemmer.ORIGINAL_ALGORITHM)
    longer = [word for word in WORDS if len(word) > 2]  # nltk stems shorter ones, Porter did not
    assert [stem(word) for word in longer] == [stemmer.stem(word) for word in longer]

    class NoSynonyms:
        @staticmethod
        def synsets(word: str) -> list:
            return []

    for candidate, references in PAIRS:
        wanted = meteor.meteor_score(references, candidate, stemmer=stemmer, wordnet=NoSynonyms())
        assert meteor_stem(candidate, references) == pytest.approx(wanted, abs=1e-4)
