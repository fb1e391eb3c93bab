"""Codecs in training: sentences with exchanged words."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.training.reconstruct import exchanged
from codi.training.task import Draws

WORDS = st.text(alphabet="abcdefg", min_size=1, max_size=3)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=4)


def _draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


@given(SENTENCES, st.floats(0.0, 1.0))
def test_exchanged_words_are_words_of_the_batch(texts: list[str], share: float) -> None:
    known = {word for text in texts for word in text.split()}
    for text, mixed in zip(texts, exchanged(texts, share, _draws()), strict=True):
        assert len(mixed.split()) == len(text.split())
        assert set(mixed.split()) <= known


@given(SENTENCES)
def test_a_share_of_nothing_changes_nothing(texts: list[str]) -> None:
    assert exchanged(texts, 0.0, _draws()) == texts


def test_a_share_of_the_words_is_exchanged() -> None:
    texts = [" ".join(f"{row}-{i}" for i in range(100)) for row in range(10)]
    pairs = zip(texts, exchanged(texts, 0.2, _draws()), strict=True)
    changed = [a != b for t, m in pairs for a, b in zip(t.split(), m.split(), strict=True)]
    assert 150 < sum(changed) < 250
