"""Varied media: other takes of the same thing."""

from __future__ import annotations

import numpy as np
import pytest

from codi.data.source import ShardsConfig
from codi.data.variation import varied_frames, varied_sound


def _drawing(frames: int = 2) -> np.ndarray:
    picture = np.full((frames, 32, 48, 3), 40, np.uint8)
    picture[:, 10:22, 20:28] = (250, 200, 150)
    return picture


def test_without_strength_nothing_changes() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(varied_frames(_drawing(), 0.0, rng), _drawing())
    sound = np.arange(-50, 50, dtype=np.int16)
    assert np.array_equal(varied_sound(sound, 0.0, rng), sound)


def test_frames_vary_alike_and_keep_their_ground_and_colours() -> None:
    for seed in range(20):
        varied = varied_frames(_drawing(3), 0.15, np.random.default_rng(seed))
        assert varied.shape == (3, 32, 48, 3)
        assert varied.dtype == np.uint8
        assert np.array_equal(varied[0], varied[2])
        assert not np.array_equal(varied, _drawing(3))
        ground = (varied == 40).all(-1).mean()
        assert 0.85 < ground < 0.97  # 94 % before: the drawing stays about as large, and inside
        assert varied[..., 0].max() > 200


def test_no_more_than_the_strength_is_moved() -> None:
    def centre(frames: np.ndarray) -> np.ndarray:
        light = frames[0, ..., 0].astype(float) - 40
        at = np.stack(np.meshgrid(np.arange(48), np.arange(32), indexing="xy"))
        return (at * light).sum((1, 2)) / light.sum()

    moves = [
        centre(varied_frames(_drawing(1), 0.1, np.random.default_rng(s))) - centre(_drawing(1))
        for s in range(40)
    ]
    most = np.abs(moves).max(0)
    assert (most > [2, 1]).all()
    assert (most < [8, 6]).all()


def test_a_sound_keeps_its_length_and_changes_its_pitch() -> None:
    time_s = np.arange(16_000) / 16_000
    sound = (8000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    pitches = []
    for seed in range(20):
        varied = varied_sound(sound, 0.12, np.random.default_rng(seed))
        assert varied.shape == sound.shape
        assert varied.dtype == np.int16
        pitches.append(np.abs(np.fft.rfft(varied)).argmax())
    assert 440 * 0.88 <= min(pitches) < 420
    assert 460 < max(pitches) <= 440 * 1.13


@pytest.mark.parametrize(
    ("vary", "message"),
    [({"smell": 0.1}, "vary: .*smell"), ({"audio": 0.9}, "audio is 0.9; give 0 to 0.5")],
)
def test_what_cannot_be_varied_is_an_error(vary: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardsConfig(("x.tar",), vary=vary)
