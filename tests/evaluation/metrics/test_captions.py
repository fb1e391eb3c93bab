"""BLEU, ROUGE-L and CIDEr: known answers, and parity with the evaluation of COCO captions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from codi.evaluation.metrics.captions import (
    ConsensusScorer,
    bleu,
    bleu_counts,
    bleu_of,
    common_length,
    rouge_l,
)
from codi.evaluation.metrics.words import words_of
from tests.evaluation.metrics.sentences import CANDIDATES, REFERENCES

OWN = [words_of(c) for c in CANDIDATES]
THEIRS = [[words_of(r) for r in some] for some in REFERENCES]


def test_a_caption_that_is_a_reference_is_perfect() -> None:
    copied = [some[0] for some in THEIRS]
    assert bleu(copied, THEIRS) == pytest.approx(1.0)
    assert [rouge_l(c, r) for c, r in zip(copied, THEIRS, strict=True)] == pytest.approx([1.0] * 5)
    alone = ConsensusScorer([[r[0]] for r in THEIRS])
    np.testing.assert_allclose(alone.cider(copied), 10.0)
    np.testing.assert_allclose(alone.cider_d(copied), 10.0)


def test_nothing_in_common_is_zero() -> None:
    strange = [["xylophone", "quartz", "zebra", "fjord"]] * 5
    assert bleu(strange, THEIRS) == 0.0
    assert rouge_l(strange[0], THEIRS[0]) == 0.0
    np.testing.assert_allclose(ConsensusScorer(THEIRS).cider_d(strange), 0.0)
    assert rouge_l([], THEIRS[0]) == 0.0
    assert bleu([[]], [[["a"]]]) == 0.0


def test_words_count_as_often_as_a_reference_has_them() -> None:
    counts = bleu_counts(["the"] * 7, [["the", "cat", "is", "on", "the", "mat"]], order=1)
    assert list(counts) == [2.0, 7.0, 7.0, 6.0]  # the example of the paper: 2 of 7
    assert bleu_of(counts) == pytest.approx(2 / 7)


def test_a_short_caption_pays() -> None:
    counts = bleu_counts(["a", "b"], [["a", "b", "c", "d"]], order=1)
    assert bleu_of(counts) == pytest.approx(math.exp(1 - 4 / 2))


def test_the_longest_common_sequence_keeps_the_order() -> None:
    assert (
        common_length(["police", "killed", "the", "gunman"], ["police", "kill", "the", "gunman"])
        == 3
    )
    assert (
        common_length(["the", "gunman", "kill", "police"], ["police", "kill", "the", "gunman"]) == 2
    )


def test_clipping_and_length_tell_the_two_ciders_apart() -> None:
    references = [[["a", "red", "ball"]], [["a", "blue", "cube"]]]
    scorer = ConsensusScorer(references)
    repeated = [["red", "ball"] * 3, ["blue", "cube"] * 3]
    assert (scorer.cider(repeated) > 2.0 * scorer.cider_d(repeated)).all()


def test_captions_need_references() -> None:
    wrongs: list[list[list[list[str]]]] = [[], [[]], THEIRS[:2]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="at least one reference"):
            bleu(OWN, wrong)
    with pytest.raises(ValueError, match="at least one reference"):
        ConsensusScorer([[]])


def as_theirs() -> tuple[dict, dict]:
    references = {i: [" ".join(r) for r in some] for i, some in enumerate(THEIRS)}
    return references, {i: [" ".join(c)] for i, c in enumerate(OWN)}


def test_they_agree_with_the_evaluation_of_coco_captions() -> None:
    why = "pycocoevalcap is not installed"
    bleu_module = pytest.importorskip("pycocoevalcap.bleu.bleu", reason=why)
    rouge_module = pytest.importorskip("pycocoevalcap.rouge.rouge", reason=why)
    cider_module = pytest.importorskip("pycocoevalcap.cider.cider", reason=why)
    references, candidates = as_theirs()
    wanted, _ = bleu_module.Bleu(4).compute_score(references, candidates, verbose=0)
    assert [bleu(OWN, THEIRS, n) for n in (1, 2, 3, 4)] == pytest.approx(wanted, abs=1e-4)
    _, each = rouge_module.Rouge().compute_score(references, candidates)
    assert [rouge_l(c, r) for c, r in zip(OWN, THEIRS, strict=True)] == pytest.approx(
        each, abs=1e-4
    )
    _, each = cider_module.Cider().compute_score(references, candidates)
    np.testing.assert_allclose(ConsensusScorer(THEIRS).cider_d(OWN), each, atol=1e-4)


def test_cider_agrees_with_the_evaluation_of_coco_where_both_ciders_are_one() -> None:
    """No n-gram comes twice and all lengths are one: nothing is clipped, nothing is penalised."""
    module = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap is missing")
    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(11)]

    def caption() -> list[str]:
        return [str(word) for word in rng.choice(words, size=9, replace=False)]

    theirs, own = [[caption() for _ in range(3)] for _ in range(30)], [caption() for _ in range(30)]
    _, each = module.Cider().compute_score(
        {i: [" ".join(r) for r in some] for i, some in enumerate(theirs)},
        {i: [" ".join(c)] for i, c in enumerate(own)},
    )
    assert max(each) > 0.1
    np.testing.assert_allclose(ConsensusScorer(theirs).cider(own), each, atol=1e-4)


def test_bleu_agrees_with_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    streams = [[" ".join(some[i % len(some)]) for some in THEIRS] for i in range(3)]
    found = sacrebleu.corpus_bleu(
        [" ".join(c) for c in OWN], streams, tokenize="none", smooth_method="none", force=True
    )
    assert 100.0 * bleu(OWN, THEIRS) == pytest.approx(found.score, abs=1e-4)


STANFORD = {
    "It's 5 o'clock, o'brien!": "it 's 5 o'clock o'brien",
    "a 5-year-old boy's 8-inch-long, 5th-grade toy": (
        "a 5-year-old boy 's 8-inch-long 5th-grade toy"
    ),
    "a 3/4-inch pole": "a 3/4-inch pole",
    "an 'open' sign, and 'no parking'": "an open sign and no parking",
    "the “red” and ‘blue’ dogs' bowls": "the red and blue dogs bowls",
    "well --- not a—dog – here": "well not a dog here",
    "a black&white cat, R&B at AT&T": "a black & white cat r&b at at&t",
    "fish'n'chips, y'all, 'em and 'til ma'am": "fish 'n' chips y' all 'em and 'til ma'am",
    "'Tis gimme at 10:30am": "'t is gim me at 10:30 am",
    "on the street.A man <UNK> sits on 1st ave.": "on the street.a man <unk> sits on 1st ave.",
    "the '80s wow!! what": "the '80s wow !! what",
}
"""Sentences and what CoreNLP 3.4.1 makes of them, without punctuation."""


@pytest.mark.parametrize("sentence", STANFORD)
def test_words_are_those_of_the_penn_treebank(sentence: str) -> None:
    assert words_of(sentence) == STANFORD[sentence].split()


def coco_folder() -> Path:
    import importlib.util

    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pycocoevalcap is not installed")
    return Path(found.submodule_search_locations[0])


@pytest.mark.slow
def test_words_agree_with_stanfords_tokenizer() -> None:
    from codi.evaluation.metrics.java import stanford_words

    sentences = [
        *CANDIDATES,
        *(r for some in REFERENCES for r in some),
        *STANFORD,
        'He said "hi" (twice); it\'s 3.5 km to the U.S. border - a well-known, 2nd one...',
        "I can't, won't and they'll; we're rock 'n' roll & r/b",
    ]
    wanted = stanford_words(sentences, coco_folder())
    for sentence, words in zip(sentences, wanted, strict=True):
        assert words_of(sentence) == words


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_meteor_agrees_with_the_evaluation_of_coco_captions() -> None:
    from codi.evaluation.metrics.java import meteor_15

    folder = coco_folder()
    module = pytest.importorskip("pycocoevalcap.meteor.meteor")
    references, candidates = as_theirs()
    wanted, each = module.Meteor().compute_score(references, candidates)
    own = [candidates[i][0] for i in range(5)]
    scores, whole = meteor_15(own, [references[i] for i in range(5)], folder)
    np.testing.assert_allclose(scores, each, atol=1e-4)
    assert whole == pytest.approx(wanted, abs=1e-4)
