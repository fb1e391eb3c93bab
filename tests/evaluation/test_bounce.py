"""The suite's items: never those of training, and read back as they are."""

from __future__ import annotations

import numpy as np
import pytest

from codi.evaluation.bounce import FIRST_SCENE, BounceSuite
from codi.evaluation.suites import MEDIA, Input
from codi.worlds import bounce

SUITE = BounceSuite()


def test_scenes_are_far_from_those_of_training() -> None:
    assert FIRST_SCENE > 1000 * 10_000_019 + 10_000_000
    scene = bounce.sample_scene(FIRST_SCENE + 3, "held-out")
    assert SUITE.truth("held-out", 3).facts == scene.facts
    assert SUITE.truth("held-out", 3) != BounceSuite(seed=1).truth("held-out", 3)


@pytest.mark.parametrize("split", bounce.SPLITS)
def test_the_split_is_kept(split: str) -> None:
    held_out = {bounce.is_held_out(SUITE.truth(split, i).facts) for i in range(20)}
    assert held_out == {split == "held-out"}


@pytest.mark.parametrize("modality", MEDIA)
def test_true_media_are_read_as_they_are(modality: str) -> None:
    items = [SUITE.medium("trained", i, modality) for i in range(3)]
    for i, reading in enumerate(SUITE.read(modality, items)):
        truth = SUITE.truth("trained", i)
        shown = {fact: truth.facts[fact] for fact in bounce.SHOWS[modality]}
        assert reading.facts == shown
        if reading.impacts_s is not None:
            assert truth.impacts_s is not None
            assert bounce.match_impacts(truth.impacts_s, reading.impacts_s).f1 == 1.0


def test_prompts_tell_what_is_asked_and_the_same_again() -> None:
    given = Input("text", ("shape", "colour"), "image")
    sentences = [SUITE.caption("trained", i, given) for i in range(8)]
    facts = [bounce.parse_caption(sentence) for sentence in sentences]
    assert all(f is not None and f.keys() == {"shape", "colour"} for f in facts)
    assert sentences == [BounceSuite().caption("trained", i, given) for i in range(8)]
    assert len(set(sentences)) > 4


def test_pictures_are_of_any_instant() -> None:
    scene = bounce.sample_scene(FIRST_SCENE)
    shown = np.asarray(SUITE.medium("trained", 0, "image"))
    assert any((frame == shown).all() for frame in bounce.render_video(scene))


def test_nonsense_is_read_as_nothing() -> None:
    (reading,) = SUITE.read("text", ["the quick brown fox"])
    assert (reading.facts, reading.words) == ({}, "the quick brown fox")
