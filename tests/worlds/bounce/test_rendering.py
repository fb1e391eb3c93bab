"""Laws of pictures and sounds, and of a sheet of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codi.worlds import bounce
from codi.worlds.bounce import picture, sound


@pytest.fixture(scope="module")
def scenes() -> list[bounce.Scene]:
    return [bounce.sample_scene(seed, bounce.SPLITS[seed % 2]) for seed in range(24)]


def test_media_have_the_shapes_they_promise(scenes: list[bounce.Scene]) -> None:
    video, audio = bounce.render_video(scenes[0]), bounce.render_audio(scenes[0])
    assert (video.shape, video.dtype) == ((16, 64, 64, 3), np.uint8)
    assert (audio.shape, audio.dtype) == ((32_000,), np.float32)


def test_an_image_is_a_frame_of_the_video(scenes: list[bounce.Scene]) -> None:
    video = bounce.render_video(scenes[1])
    for frame in (0, 5, 15):
        np.testing.assert_array_equal(bounce.render_image(scenes[1], frame), video[frame])


def test_rendering_is_a_function_of_the_scene(scenes: list[bounce.Scene]) -> None:
    np.testing.assert_array_equal(bounce.render_video(scenes[2]), bounce.render_video(scenes[2]))
    np.testing.assert_array_equal(bounce.render_audio(scenes[2]), bounce.render_audio(scenes[2]))


@pytest.mark.parametrize("shape", bounce.FACTS["shape"])
@pytest.mark.parametrize("extent", [16.5, 22.0, 29.0])
def test_every_shape_is_as_high_as_its_extent_and_lies_inside_its_patch(
    shape: str, extent: float
) -> None:
    opacity = picture.sprite(shape, "wood", extent, np.zeros(1), np.zeros(1))[0][0]
    assert opacity[[0, -1]].max() == 0.0
    assert opacity[:, [0, -1]].max() == 0.0
    # A column cannot cover more of the height than the object has; the middle one covers most.
    top, bottom = np.flatnonzero(opacity.max(1) > 0.0)[[0, -1]]
    assert extent - 1.5 <= bottom + 1 - top <= extent + 3.0


def test_sprites_move_by_less_than_a_pixel() -> None:
    offsets = np.array([0.0, 0.25, 0.5])
    opacity = picture.sprite("ball", "rubber", 22.0, offsets, np.zeros(3))[0]
    columns = np.arange(opacity.shape[-1]) + 0.5 - opacity.shape[-1] / 2
    centres = (opacity * columns).sum((1, 2)) / opacity.sum((1, 2))
    np.testing.assert_allclose(centres, offsets, atol=0.02)


def test_the_sound_starts_with_the_impacts_and_fades(scenes: list[bounce.Scene]) -> None:
    for scene in scenes:
        audio = np.abs(bounce.render_audio(scene))
        starts = np.round(np.array(scene.impact_times_s) * 16_000).astype(int)
        assert audio[: starts[0] - 1].max() < 0.01
        peaks = np.array([audio[s : s + 800].max() for s in starts])
        assert peaks[0] == pytest.approx(0.5, abs=0.01)
        assert 20.0 * np.log10(peaks.min() / peaks[0]) > -18.0
        # What still rings from before may add to a later impact, but only a little.
        assert np.all(np.diff(peaks) < 0.02)


def test_all_modes_are_below_seven_kilohertz_and_die_within_half_a_second() -> None:
    highest = 1.02 * max(sound.PITCH_HZ.values())
    for material, timbre in sound.TIMBRES.items():
        assert max(timbre.ratios) * highest * (1.0 + timbre.glide) < 7_000.0, material
        assert max(timbre.decays_s) <= 0.5


def test_what_a_modality_does_not_show_leaves_no_trace_in_it(scenes: list[bounce.Scene]) -> None:
    scene = scenes[3]
    other = replace(scene, facts={**scene.facts, "shape": "cross", "colour": "pink"})
    np.testing.assert_array_equal(bounce.render_audio(scene), bounce.render_audio(other))


def test_a_sheet_shows_every_clip_once_and_marks_every_impact(scenes: list[bounce.Scene]) -> None:
    three = scenes[:3]
    sheet = bounce.contact_sheet(
        [bounce.render_video(s) for s in three],
        [bounce.render_audio(s) for s in three],
        [s.impact_times_s for s in three],
        columns=2,
        shown=4,
        scale=1,
    )
    cell, gap = (64 + 14, 4 * 64), 6
    assert sheet.shape == (gap + 2 * (cell[0] + gap), gap + 2 * (cell[1] + gap), 3)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[6:70, 6:69], bounce.render_image(three[0], 0)[:, :63])
    strip = sheet[70:84, 6 : 6 + cell[1]].astype(int)
    marked = (strip[..., 0] - strip[..., 2] > 100).all(0)
    assert marked.sum() == len(three[0].impact_times_s)


def test_a_sheet_of_unequal_lists_is_refused() -> None:
    with pytest.raises(ValueError, match="as many sounds"):
        bounce.contact_sheet([np.zeros((16, 64, 64, 3), np.uint8)], [], [])
