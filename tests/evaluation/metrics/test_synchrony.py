"""A clap at 0.5 s is heard at 0.5 s; what is shifted by k ms comes out at k ms."""

from __future__ import annotations

import numpy as np
import pytest

from codi.evaluation.metrics.motion import motion, optical_flow
from codi.evaluation.metrics.synchrony import (
    HOP_S,
    av_align,
    desync_s,
    motion_peaks,
    offset_s,
    onset_strength,
    onset_times,
)

RATE_HZ = 16_000


def claps(times_s: list[float], duration_s: float = 2.0) -> np.ndarray:
    """Return bursts of noise that die away, on a little hiss."""
    rng = np.random.default_rng(0)
    x = 1e-4 * rng.standard_normal(int(duration_s * RATE_HZ))
    for time in times_s:
        start = round(time * RATE_HZ)
        burst = rng.standard_normal(RATE_HZ // 5) * np.exp(-np.arange(RATE_HZ // 5) / 800.0)
        x[start : start + len(burst)] += 0.3 * burst[: len(x) - start]
    return x.astype(np.float32)


def texture(seed: int = 0, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_onsets_are_where_something_begins() -> None:
    wanted = [0.25, 0.8, 1.31, 1.7]
    found = onset_times(claps(wanted), RATE_HZ)
    assert found == pytest.approx(wanted, abs=0.02)


def test_silence_and_a_steady_tone_have_none() -> None:
    t = np.arange(2 * RATE_HZ) / RATE_HZ
    assert onset_times(np.zeros(RATE_HZ, np.float32), RATE_HZ) == ()
    assert onset_times(np.zeros(10, np.float32), RATE_HZ) == ()
    assert onset_times((0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32), RATE_HZ) == ()
    hiss = 0.1 * np.random.default_rng(0).standard_normal(len(t))
    assert onset_times(hiss.astype(np.float32), RATE_HZ) == ()


@pytest.mark.parametrize("ms", [-250, -40, 0, 15, 120, 400])
def test_a_sound_shifted_by_k_ms_gives_k(ms: int) -> None:
    times = [0.5, 0.9, 1.2]
    a = onset_strength(claps(times), RATE_HZ)
    b = onset_strength(claps([t + ms / 1000 for t in times]), RATE_HZ)
    assert 1000 * offset_s(a, b) == pytest.approx(ms, abs=1000 * HOP_S)


def test_an_offset_finer_than_a_hop_is_found() -> None:
    t = np.arange(400) * HOP_S
    a, b = (np.exp(-(((t - at) / 0.03) ** 2)) for at in (0.9, 0.9 + 0.4 * HOP_S))
    assert offset_s(a, b) == pytest.approx(0.4 * HOP_S, abs=0.05 * HOP_S)


def test_nothing_to_compare() -> None:
    assert offset_s(np.zeros(10), np.zeros(10)) == 0.0
    with pytest.raises(ValueError, match="same instants"):
        offset_s(np.zeros(10), np.zeros(9))
    with pytest.raises(ValueError, match="at least 2"):
        motion(texture()[None])


def test_sounds_that_are_no_numbers_are_refused() -> None:
    broken = claps([0.5])
    broken[100] = np.nan
    with pytest.raises(ValueError, match="samples that are not finite"):
        onset_times(broken, RATE_HZ)
    strength = np.array([0.0, np.inf, 0.0])
    for pair in ((strength, np.ones(3)), (np.ones(3), strength)):
        with pytest.raises(ValueError, match="strengths that are not finite"):
            offset_s(*pair)


@pytest.mark.parametrize("step", [(0, 0), (2, -3), (-5, 1), (0, 7)])
def test_a_texture_that_moves_gives_its_step(step: tuple[int, int]) -> None:
    picture = texture()
    flow = optical_flow(np.stack([picture, np.roll(picture, step, axis=(0, 1))]))
    inner = flow[0, :, 12:-12, 12:-12]
    assert (inner[0] == step[0]).all()
    assert (inner[1] == step[1]).all()


def test_flat_pictures_stand_still() -> None:
    flat = np.full((3, 32, 32, 3), 77, np.uint8)
    assert motion(flat).tolist() == [0.0, 0.0]
    large = np.full((2, 300, 200, 3), 9, np.uint8)
    assert optical_flow(large).shape == (1, 2, 64, 43)


def test_peaks_are_where_a_clip_moves_most() -> None:
    steps = [0, 1, 5, 1, 0, 0, 4, 1]
    picture, at, frames = texture(), 0, [texture()]
    for step in steps:
        at += step
        frames.append(np.roll(picture, at, axis=1))
    assert motion_peaks(np.stack(frames), fps=8.0) == pytest.approx([3 / 8, 7 / 8])


def test_av_align_from_all_to_nothing() -> None:
    times = [0.5, 1.0, 1.5]
    assert av_align(times, times, 0.125) == 1.0
    assert av_align(times, [t + 0.2 for t in times], 0.125) == 0.0
    assert av_align(times, [0.55], 0.125) == pytest.approx(1 / 3)
    assert av_align([0.5], times, 0.125) == av_align(times, [0.5], 0.125)
    assert av_align([], [], 0.125) == 0.0
    assert av_align([], times, 0.125) == 0.0


# Onsets (librosa 0.11), peaks of motion (OpenCV 5.0, Farnebäck) and what the published code makes
# of them (TempoTokens' `av_align.py`): true scenes of the suite "bounce", at 8 frames a second.
PUBLISHED = [
    ([0.0697, 0.6502, 1.579], [0.5, 0.875, 1.375, 1.75], 0.0),
    ([0.3019, 0.8591, 1.37, 1.8808], [0.25, 0.5, 0.75, 1.0, 1.5], 2 / 7),
    ([0.743, 1.3003, 1.8344], [0.875, 1.25, 1.5, 1.75], 0.4),
    ([0.9752, 1.5325], [0.5, 0.875, 1.125, 1.5], 0.5),
    ([0.0697, 0.6502, 1.2074, 1.7415], [0.625, 1.125, 1.375], 0.4),
]


@pytest.mark.parametrize(("onsets", "peaks", "score"), PUBLISHED)
def test_av_align_is_that_of_the_published_code_on_its_events(
    onsets: list[float], peaks: list[float], score: float
) -> None:
    assert av_align(onsets, peaks, 1 / 8) == pytest.approx(score)


def test_two_onsets_at_one_peak_count_as_in_the_paper() -> None:
    """The paper halves the sum; of the first its code said 2 once, and says 1/2 since."""
    assert av_align([0.45, 0.55], [0.5], 0.125) == pytest.approx(1.5 / 1.5)
    assert av_align([0.45, 0.55], [0.5, 1.5], 0.125) == pytest.approx(1.5 / 2.5)


def test_desync_is_the_distance_of_the_likeliest_offset() -> None:
    assert desync_s(np.array([-1.0, 0.0, 0.2])).tolist() == [1.0, 0.0, 0.2]
