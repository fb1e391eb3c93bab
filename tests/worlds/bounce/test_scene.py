"""Laws of what happens in a scene, and of what it shows to whom."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codi.worlds import bounce
from codi.worlds.bounce.scene import GRAVITY_PX_S2


@pytest.fixture(scope="module")
def scenes() -> list[bounce.Scene]:
    return [bounce.sample_scene(seed, bounce.SPLITS[seed % 2]) for seed in range(600)]


def test_the_same_seed_and_split_give_the_same_scene_and_others_another() -> None:
    assert bounce.sample_scene(7) == bounce.sample_scene(7)
    assert bounce.sample_scene(7) != bounce.sample_scene(8)
    assert bounce.sample_scene(7) != bounce.sample_scene(7, "held-out")


def test_impacts_can_be_told_apart_and_none_is_too_late_to_be_noticed(
    scenes: list[bounce.Scene],
) -> None:
    for scene in scenes:
        intervals = np.diff(scene.impact_times_s)
        assert len(intervals) >= 1
        assert intervals.min() >= 0.375
        assert GRAVITY_PX_S2 * intervals.min() ** 2 / 8.0 >= 3.0  # the lowest rebound, in pixels
        assert scene.impact_times_s[0] >= 0.05
        assert scene.impact_times_s[-1] <= 1.87


def test_heights_are_zero_at_impacts_and_never_jump(scenes: list[bounce.Scene]) -> None:
    times = np.linspace(0.0, bounce.DURATION_S, 4_001)
    for scene in scenes[:50]:
        heights = scene.heights_px(times)
        assert heights.min() >= 0.0
        fastest = scene.impact_speeds_px_s()[0] * (times[1] - times[0])
        assert np.abs(np.diff(heights)).max() <= fastest * 1.01
        at_impacts = scene.heights_px(np.array(scene.impact_times_s))
        np.testing.assert_allclose(at_impacts, 0.0, atol=1e-9)
        assert heights[0] == pytest.approx(scene.drop_px) or scene.release_s < 0.0


def test_the_object_stays_inside_the_picture(scenes: list[bounce.Scene]) -> None:
    for scene in scenes:
        ends = scene.centres_x_px(np.array([0.0, bounce.DURATION_S]))
        assert ends.min() >= 0.55 * scene.extent_px
        assert ends.max() <= bounce.SIZE_PX - 0.55 * scene.extent_px
        assert scene.extent_px >= 16.0
        assert scene.drop_px + scene.extent_px <= 60.0


def test_no_caption_tells_when_the_impacts_happen() -> None:
    scores = []
    for seed in range(300):
        facts = bounce.sample_scene(seed).facts
        one, other = (bounce.sample_scene(s, facts=facts) for s in (seed + 1_000, seed + 2_000))
        assert one.facts == other.facts
        scores.append(bounce.match_impacts(one.impact_times_s, other.impact_times_s).f1)
    assert np.mean(scores) <= 0.45


def test_splits_differ_by_held_out_pairs_and_every_value_stays_common(
    scenes: list[bounce.Scene],
) -> None:
    for split, some in (("trained", scenes[::2]), ("held-out", scenes[1::2])):
        assert all(bounce.is_held_out(s.facts) == (split == "held-out") for s in some)
        for fact, values in bounce.FACTS.items():
            for value in values:
                share = np.mean([s.facts[fact] == value for s in some])
                assert share > 0.5 / len(values), (split, fact, value)


def test_about_a_tenth_of_the_pairs_of_each_kind_is_held_out() -> None:
    for (first, second), pairs in bounce.HELD_OUT.items():
        every = set(itertools.product(bounce.FACTS[first], bounce.FACTS[second]))
        assert pairs < every
        assert 0.1 <= len(pairs) / len(every) <= 0.13


def test_facts_can_be_fixed() -> None:
    fixed = {"shape": "star", "tempo": "fast"}
    assert fixed.items() <= bounce.sample_scene(3, "held-out", fixed).facts.items()


@pytest.mark.parametrize(
    ("split", "facts", "message"),
    [
        ("test", {}, "unknown split"),
        ("trained", {"weight": "heavy"}, "unknown fact"),
        ("trained", {"shape": "cube"}, "unknown shape"),
        ("trained", {"shape": "ball", "colour": "blue"}, "no scene"),
    ],
)
def test_what_cannot_be_is_refused(split: str, facts: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bounce.sample_scene(0, split, facts)
