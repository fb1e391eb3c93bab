"""Laws of captions: what is written can be read, and says no more than the medium shows."""

from __future__ import annotations

import numpy as np
import pytest

from codi.worlds import bounce

MODALITIES = tuple(bounce.SHOWS)


def written(modality: str, count: int, complete: bool = False) -> list[bounce.Caption]:
    rng = np.random.default_rng(0)
    facts = [bounce.sample_scene(seed, bounce.SPLITS[seed % 2]).facts for seed in range(count)]
    return [bounce.write_caption(f, modality, rng, complete) for f in facts]


@pytest.mark.parametrize("modality", MODALITIES)
def test_reading_undoes_writing(modality: str) -> None:
    for caption in written(modality, 400):
        assert bounce.parse_caption(caption.text) == caption.mentions


@pytest.mark.parametrize("modality", MODALITIES)
def test_captions_tell_random_parts_of_what_the_modality_shows(modality: str) -> None:
    told = [frozenset(c.mentions) for c in written(modality, 400)]
    assert frozenset().union(*told) == set(bounce.SHOWS[modality])
    assert min(map(len, told)) == 1
    assert len(set(told)) > 2 ** (len(bounce.SHOWS[modality]) - 1)
    complete = written(modality, 50, complete=True)
    assert all(set(c.mentions) == set(bounce.SHOWS[modality]) for c in complete)


def test_a_small_vocabulary_short_sentences_and_many_wordings() -> None:
    captions = [c for m in MODALITIES for c in written(m, 400) + written(m, 100, complete=True)]
    words = {word for c in captions for word in c.text.split()}
    assert words <= bounce.VOCABULARY
    assert len(bounce.VOCABULARY) <= 120
    assert max(len(c.text.split()) for c in captions) <= 20
    assert all(c.text == c.text.lower().strip() for c in captions)
    rng = np.random.default_rng(1)
    facts = bounce.sample_scene(0).facts
    same = {bounce.write_caption(facts, "text", rng, complete=True).text for _ in range(100)}
    assert len(same) > 50


def test_exactly_the_facts_asked_for_are_told() -> None:
    facts, rng = bounce.sample_scene(5).facts, np.random.default_rng(0)
    caption = bounce.write_caption(facts, "video", rng, mention=["tempo", "colour"])
    assert caption.mentions == {"colour": facts["colour"], "tempo": facts["tempo"]}


@pytest.mark.parametrize("mention", [[], ["colour"], ["weight"]])
def test_what_a_modality_does_not_show_cannot_be_told(mention: list[str]) -> None:
    facts, rng = bounce.sample_scene(5).facts, np.random.default_rng(0)
    with pytest.raises(ValueError, match="cannot tell"):
        bounce.write_caption(facts, "audio", rng, mention=mention)


@pytest.mark.parametrize(
    "text",
    ["", "the the the", "a thing bounces", "two dogs bark near the red barn of my uncle", "42 !?"],
)
def test_what_is_no_caption_of_this_world_is_not_read_as_one(text: str) -> None:
    assert bounce.parse_caption(text) is None


def test_a_few_strange_words_do_not_hide_a_caption() -> None:
    assert bounce.parse_caption("A really big RED ball, bounces slowly.") == {
        "shape": "ball",
        "colour": "red",
        "size": "large",
        "tempo": "slow",
    }


def test_a_truncated_caption_begins_like_the_whole_and_claims_less() -> None:
    for caption in written("text", 200):
        short = bounce.truncate_caption(caption.text)
        assert caption.text.startswith(short.text)
        assert len(short.text) < len(caption.text)
        assert short.mentions.items() <= caption.mentions.items()
