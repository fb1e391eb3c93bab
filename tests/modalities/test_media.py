"""Objects, arrays and tensors of each modality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from codi import media
from codi.config import ConfigError
from codi.modalities import modality
from tests.small import NAMES, SENTENCE, objects, small_config

CONFIG = small_config()


@pytest.mark.parametrize("name", NAMES)
def test_an_object_that_fits_is_taken_as_it_is(name: str) -> None:
    entry, given = CONFIG.media(name), objects()[name]
    item, notes = entry.load(given)
    assert notes == []
    assert np.array_equal(entry.to_array(item), entry.to_array(given))


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_gives_its_objects_back(name: str) -> None:
    entry, given = CONFIG.media(name), objects()[name]
    [item] = entry.from_tensor(entry.to_tensor([entry.to_array(given)]))
    assert np.array_equal(entry.to_array(item), entry.to_array(given))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_object_loads_again(name: str, tmp_path: Path) -> None:
    entry, given = CONFIG.media(name), objects()[name]
    path = tmp_path / f"out.{modality(name).suffix}"
    entry.save(given, path)
    item, _ = entry.load(path)
    assert np.shape(entry.to_array(item)) == np.shape(entry.to_array(given))


@pytest.mark.parametrize("name", NAMES)
def test_an_object_can_be_seen_at_a_glance(name: str) -> None:
    picture = CONFIG.media(name).picture(objects()[name])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


def test_a_picture_of_another_size_is_fitted_and_said() -> None:
    item, notes = CONFIG.media("image").load(Image.new("RGB", (200, 100), "red"))
    assert item.size == (64, 64)
    assert item.getpixel((32, 32)) == (255, 0, 0)
    assert notes == ["image: centre crop 100x100 of 200x100, resized to 64x64"]


def test_a_transparent_picture_lies_on_white() -> None:
    item, notes = CONFIG.media("image").load(Image.new("RGBA", (64, 64), (255, 0, 0, 0)))
    assert item.getpixel((0, 0)) == (255, 255, 255)
    assert notes == ["image: transparency laid on white"]


@pytest.mark.parametrize("top", [65535, 1.0])
def test_a_picture_of_many_shades_keeps_them(top: float) -> None:
    """16-bit and float pictures have modes whose numbers go beyond 255, or stay below 1."""
    shades = np.linspace(0, top, 64)[None].repeat(64, axis=0)
    picture = Image.fromarray(shades.astype(np.float32 if top == 1 else np.uint16))
    item, notes = CONFIG.media("image").load(picture)
    assert np.abs(np.asarray(item)[0, :, 0] - np.linspace(0, 255, 64)).max() <= 1
    assert notes == ["image: reduced to 8 bits"]


@pytest.mark.parametrize(("fps", "expected"), [(8.0, 5), (16.0, 10), (4.0, 2), (24.0, 15)])
def test_a_clip_of_another_rate_is_what_it_shows_at_each_instant(fps: float, expected: int) -> None:
    numbers = np.arange(60, dtype=np.uint8)[:, None, None, None]
    clip = media.Video(np.broadcast_to(numbers, (60, 64, 64, 3)).copy(), fps)
    item, notes = CONFIG.media("video").load(clip)
    assert item.frames.shape == (16, 64, 64, 3)
    assert item.fps == 8.0
    assert item.frames[5].max() == expected
    assert "used 2.0 s of " in notes[0]
    assert (f"{fps:g} -> 8 fps" in notes[0]) == (fps != 8)


def test_a_clip_of_another_shape_is_said_to_be_cropped() -> None:
    clip = media.Video(np.zeros((16, 48, 80, 3), np.uint8), 8.0)
    notes = CONFIG.media("video").load(clip)[1]
    assert notes == ["video: centre crop 48x48 of 80x48, resized to 64x64"]


@pytest.mark.parametrize(
    ("name", "mend"),
    [("audio", "codi.media.Audio"), ("video", "codi.media.Video"), ("image", "Image.fromarray")],
)
def test_an_array_is_refused_with_what_would_do(name: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=rf"{mend}.*got ndarray"):
        CONFIG.media(name).load(np.zeros((4, 4)))


def test_a_short_clip_holds_its_last_frame() -> None:
    numbers = np.arange(3, dtype=np.uint8)[:, None, None, None]
    clip = media.Video(np.broadcast_to(numbers, (3, 64, 64, 3)).copy(), 8.0)
    item, notes = CONFIG.media("video").load(clip)
    assert [int(frame.max()) for frame in item.frames[:5]] == [0, 1, 2, 2, 2]
    assert notes == ["video: only 0.38 s long, so that its last frame is held up to 2.0 s"]


def test_a_single_frame_is_no_clip(tmp_path: Path) -> None:
    """The object is refused as its file is."""
    clip = media.Video(np.zeros((1, 64, 64, 3), np.uint8), 8.0)
    clip.save(tmp_path / "still.mp4")
    for source in (clip, tmp_path / "still.mp4"):
        with pytest.raises(media.MediaError, match="is a single picture, not a moving one; ") as e:
            CONFIG.media("video").load(source)
        assert str(e.value).endswith(("give its frame as an image", "use --image"))


def test_a_clip_without_its_sound_says_so(tmp_path: Path) -> None:
    made = objects()
    clip = replace(made["video"], audio=made["audio"])
    item, notes = CONFIG.media("video").load(clip)
    assert item.audio is None
    assert notes == ["video: without its sound (to use it, give its audio too)"]
    clip.save(tmp_path / "clip.mp4")
    item, notes = CONFIG.media("video").load(tmp_path / "clip.mp4")
    assert item.audio is None
    assert notes == ["clip.mp4: without its sound (to use it, give the file as audio too)"]
    assert CONFIG.media("audio").load(tmp_path / "clip.mp4")[1] == []


def test_a_sound_of_another_rate_is_fitted_and_said() -> None:
    item, notes = CONFIG.media("audio").load(media.Audio(np.zeros(8000, np.float32), 8000))
    assert item.samples.shape == (32_000,)
    assert item.sample_rate_hz == 16_000
    assert notes[0].startswith("audio: 8000 -> 16000 Hz")


@pytest.mark.parametrize("name", ["image", "video", "audio"])
@pytest.mark.parametrize("wrong", [3, np.zeros(5), None])
def test_what_is_neither_file_nor_object_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected a file name or an? .*, got"):
        CONFIG.media(name).load(wrong)


def test_stored_sounds_are_16_bit() -> None:
    stored = np.array([[32767, 0, -32767]], dtype=np.int16)
    tensor = CONFIG.media("audio").to_tensor(stored)
    torch.testing.assert_close(tensor, torch.tensor([[1.0, 0.0, -1.0]]))


def test_values_out_of_range_are_clipped() -> None:
    [picture] = CONFIG.media("image").from_tensor(torch.full((1, 3, 1, 64, 64), 7.0))
    assert picture.getextrema() == ((255, 255),) * 3
    [sound] = CONFIG.media("audio").from_tensor(torch.full((1, 100), -7.0))
    assert sound.samples.min() == -1.0


def test_a_video_is_saved_with_the_sound_beside_it(tmp_path: Path) -> None:
    made = objects()
    for name, beside in (("silent", {}), ("sounding", {"audio": made["audio"]})):
        entry = CONFIG.media("video")
        entry.save(entry.with_others(made["video"], beside), tmp_path / f"{name}.mp4")
    assert media.has_audio(tmp_path / "sounding.mp4")
    assert not media.has_audio(tmp_path / "silent.mp4")


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    CONFIG.media("text").save(SENTENCE, tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").strip() == SENTENCE
