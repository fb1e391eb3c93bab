"""Codecs in training: sentences with exchanged words."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.build import Model
from codi.data.batches import Batch
from codi.data.source import Caption
from codi.training.reconstruct import (
    Reconstruct,
    ReconstructConfig,
    Vocode,
    VocodeConfig,
    exchanged,
)
from codi.training.task import Draws
from tests.small import small_config

WORDS = st.text(alphabet="abcdefg", min_size=1, max_size=3)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=4)


def _draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


@given(SENTENCES, st.floats(0.0, 1.0))
def test_an_exchanged_word_follows_the_same_word_elsewhere(texts: list[str], share: float) -> None:
    pairs = {pair for text in texts for pair in itertools.pairwise(["", *text.split()])}
    for text, mixed in zip(texts, exchanged(texts, share, _draws()), strict=True):
        before = ["", *text.split()][:-1]
        assert len(mixed.split()) == len(before)
        assert set(zip(before, mixed.split(), strict=True)) <= pairs


@given(SENTENCES)
def test_a_share_of_nothing_changes_nothing(texts: list[str]) -> None:
    assert exchanged(texts, 0.0, _draws()) == texts


def test_a_share_of_the_words_is_exchanged() -> None:
    texts = [" ".join(f"the {row}-{i}" for i in range(50)) for row in range(10)]
    pairs = zip(texts, exchanged(texts, 0.2, _draws()), strict=True)
    changed = [a != b for t, m in pairs for a, b in zip(t.split(), m.split(), strict=True)]
    assert 70 < sum(changed) < 130  # of 1,000 words every second has no other to give way to


def test_objectives_of_a_codec_use_it_alone_and_what_it_encodes() -> None:
    model = Model(small_config(), [])
    batch = Batch(media={"audio": torch.ones(2, 8)}, captions=[Caption("a bell", None)] * 2)
    for task in (
        Reconstruct(model, ReconstructConfig("audio")),
        Vocode(model, VocodeConfig("audio")),
    ):
        assert task.parts == ["codecs.audio"]
        assert task.medium(batch) is batch.media["audio"]
    written = Reconstruct(model, ReconstructConfig("text", ("audio",)))
    assert written.medium(batch) == ["a bell"] * 2
