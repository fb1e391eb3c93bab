"""How well the oracle reads true media, degraded ones, and none at all."""

from __future__ import annotations

import numpy as np
import pytest

from codi.worlds import bounce
from codi.worlds.bounce.falling import impacts_from_heights

CLIPS = 40
WINDOW, HOP, BANDS = 1024, 125, 64


@pytest.fixture(scope="module")
def scenes() -> list[bounce.Scene]:
    return [bounce.sample_scene(3_000 + i, bounce.SPLITS[i % 2]) for i in range(CLIPS)]


def accuracy(scenes: list[bounce.Scene], readings: list[dict[str, str]]) -> dict[str, float]:
    """Return the share of right readings by fact."""
    return {
        fact: float(
            np.mean([s.facts[fact] == r[fact] for s, r in zip(scenes, readings, strict=True)])
        )
        for fact in readings[0]
    }


def check(
    scenes: list[bounce.Scene], modality: str, readings: list[bounce.Reading], floor: float
) -> None:
    """Assert facts of at least `floor`, impacts that pair and offsets of at most 20 ms."""
    shares = accuracy(scenes, [reading.facts for reading in readings])
    assert set(shares) == set(bounce.SHOWS[modality])
    assert min(shares.values()) >= floor, shares
    matches = [
        bounce.match_impacts(s.impact_times_s, r.impact_times_s)
        for s, r in zip(scenes, readings, strict=True)
    ]
    assert np.mean([m.f1 for m in matches]) >= 0.99
    assert np.median(np.abs([o for m in matches for o in m.offsets_s])) <= 0.02


def blurred(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return pictures (..., H, W, 3) after a Gaussian blur of 0.6 px and noise of 6/255."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2.0 * 0.6**2))
    taps /= taps.sum()
    soft = pictures.astype(float)
    for axis in (-3, -2):
        around = [(0, 0)] * soft.ndim
        around[axis] = (3, 3)
        wide = np.pad(soft, around, mode="edge")
        size = soft.shape[axis]
        soft = sum(tap * np.take(wide, np.arange(i, i + size), axis) for i, tap in enumerate(taps))
    noisy = soft + rng.normal(0.0, 6.0, soft.shape)
    return np.asarray(noisy.round().clip(0, 255).astype(np.uint8))


def mel_filters() -> np.ndarray:
    """Return triangular filters (64, 513) from 0 to 8 kHz on Slaney's mel scale."""
    step = np.log(6.4) / 27.0
    corners = np.linspace(0.0, 15.0 + np.log(8.0) / step, BANDS + 2)
    hz = np.where(corners < 15.0, corners * 200.0 / 3.0, 1_000.0 * np.exp(step * (corners - 15.0)))
    bins = np.fft.rfftfreq(WINDOW, 1.0 / bounce.SAMPLE_RATE_HZ)
    rising = (bins - hz[:-2, None]) / np.diff(hz)[:-1, None]
    falling = (hz[2:, None] - bins) / np.diff(hz)[1:, None]
    return np.minimum(rising, falling).clip(min=0.0)


def griffin_lim(samples: np.ndarray, rng: np.random.Generator, rounds: int = 12) -> np.ndarray:
    """Return a sound with the mel spectrogram of `samples`, and phases found from noise."""
    window = np.hanning(WINDOW + 1)[:-1]
    filters = mel_filters()

    def spectrum(x: np.ndarray) -> np.ndarray:
        wide = np.pad(x, WINDOW // 2)
        frames = np.lib.stride_tricks.sliding_window_view(wide, WINDOW)[::HOP]
        return np.fft.rfft(frames * window)

    def waveform(s: np.ndarray) -> np.ndarray:
        total = np.zeros((2, (len(s) - 1) * HOP + WINDOW))
        for i, frame in enumerate(np.fft.irfft(s) * window):
            total[0, i * HOP : i * HOP + WINDOW] += frame
            total[1, i * HOP : i * HOP + WINDOW] += window**2
        both = total[:, WINDOW // 2 :][:, : len(samples)]
        return np.asarray(both[0] / np.maximum(both[1], 1e-3))

    mel = np.maximum(np.abs(spectrum(samples)) @ filters.T, 1e-5)
    loud = np.maximum(mel @ np.linalg.pinv(filters).T, 0.0)
    phase = np.exp(2j * np.pi * rng.random(loud.shape))
    for _ in range(rounds):
        guess = spectrum(waveform(loud * phase))
        phase = guess / np.maximum(np.abs(guess), 1e-9)
    return waveform(loud * phase)


def test_true_pictures(scenes: list[bounce.Scene]) -> None:
    pictures = [bounce.render_image(s, i % bounce.FRAMES) for i, s in enumerate(scenes)]
    shares = accuracy(scenes, [bounce.read_image(p) for p in pictures])
    assert set(shares) == set(bounce.SHOWS["image"])
    assert min(shares.values()) >= 0.99, shares


def test_blurred_and_noisy_pictures(scenes: list[bounce.Scene]) -> None:
    rng = np.random.default_rng(0)
    pictures = [bounce.render_image(s, i % bounce.FRAMES) for i, s in enumerate(scenes)]
    shares = accuracy(scenes, [bounce.read_image(blurred(p, rng)) for p in pictures])
    assert min(shares.values()) >= 0.97, shares


def test_true_videos(scenes: list[bounce.Scene]) -> None:
    readings = [bounce.read_video(bounce.render_video(s), bounce.FPS) for s in scenes]
    check(scenes, "video", readings, 0.99)


def test_blurred_and_noisy_videos(scenes: list[bounce.Scene]) -> None:
    rng = np.random.default_rng(0)
    some = scenes[:20]
    videos = [blurred(bounce.render_video(s), rng) for s in some]
    check(some, "video", [bounce.read_video(v, bounce.FPS) for v in videos], 0.97)


def test_true_sounds(scenes: list[bounce.Scene]) -> None:
    sounds = [bounce.render_audio(s) for s in scenes]
    check(scenes, "audio", [bounce.read_audio(x, bounce.SAMPLE_RATE_HZ) for x in sounds], 0.99)


def test_sounds_from_a_mel_spectrogram(scenes: list[bounce.Scene]) -> None:
    rng = np.random.default_rng(0)
    some = scenes[:12]
    sounds = [griffin_lim(bounce.render_audio(s), rng) for s in some]
    check(some, "audio", [bounce.read_audio(x, bounce.SAMPLE_RATE_HZ) for x in sounds], 0.97)


def test_sounds_in_noise_at_another_rate_and_in_stereo(scenes: list[bounce.Scene]) -> None:
    rng = np.random.default_rng(0)
    some, rate = scenes[:12], 22_050
    at = np.arange(int(bounce.DURATION_S * rate)) * (bounce.SAMPLE_RATE_HZ / rate)
    sounds = [np.interp(at, np.arange(bounce.SAMPLES), bounce.render_audio(s)) for s in some]
    stereo = [np.stack([x, x]) + rng.normal(0.0, 0.01, (2, len(x))) for x in sounds]
    check(some, "audio", [bounce.read_audio(x, rate) for x in stereo], 0.97)


def test_a_late_sound_is_read_late_by_as_much(scenes: list[bounce.Scene]) -> None:
    sound = bounce.render_audio(scenes[0])
    late = np.pad(sound, (1_600, 0))[: len(sound)]
    before, after = (
        bounce.read_audio(x, bounce.SAMPLE_RATE_HZ).impact_times_s[0] for x in (sound, late)
    )
    assert after - before == pytest.approx(0.1, abs=0.005)


def test_one_wild_frame_does_not_move_the_impacts(scenes: list[bounce.Scene]) -> None:
    times = np.arange(bounce.FRAMES) / bounce.FPS
    for scene in scenes[:10]:
        heights = scene.heights_px(times)
        heights[6] += 15.0
        read = impacts_from_heights(heights, bounce.FPS)
        assert bounce.match_impacts(scene.impact_times_s, read, 0.06).f1 >= 0.79


@pytest.mark.parametrize("shape", [(64, 64, 3), (17, 91, 3), (1, 1, 3), (64, 64, 4), (64, 64, 1)])
def test_any_picture_has_an_answer(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for picture in (np.zeros(shape, np.uint8), rng.integers(256, size=shape).astype(np.uint8)):
        for facts in (bounce.read_image(picture), bounce.read_video(picture[None], 0.0).facts):
            assert all(value in bounce.FACTS[fact] for fact, value in facts.items())


def test_any_video_has_an_answer() -> None:
    rng = np.random.default_rng(0)
    for frames in (0, 2, 5, 200):
        video = rng.integers(256, size=(frames, 64, 64, 3)).astype(np.uint8)
        reading = bounce.read_video(video, 8)
        assert set(reading.facts) == set(bounce.SHOWS["video"])
        assert all(np.diff(reading.impact_times_s) > 0.0)


@pytest.mark.parametrize("count", [0, 1, 700, 32_000, 50_000])
def test_any_sound_has_an_answer(count: int) -> None:
    rng = np.random.default_rng(0)
    for sound in (np.zeros(count), rng.normal(size=count), np.full(count, np.nan), np.ones(count)):
        reading = bounce.read_audio(sound, 16_000)
        assert set(reading.facts) == set(bounce.SHOWS["audio"])
    assert bounce.read_audio(np.zeros(count), 16_000).impact_times_s == ()


def test_matching_pairs_as_many_as_possible_and_each_once() -> None:
    match = bounce.match_impacts([0.1, 0.2, 1.0], [0.2, 0.3, 1.5])
    assert match.f1 == pytest.approx(2 / 3)
    assert match.offsets_s == pytest.approx((0.1, 0.1))
    assert bounce.match_impacts([], []).f1 == 0.0
    assert bounce.match_impacts([0.5], [0.5]).f1 == 1.0
    assert bounce.match_impacts([0.5, 0.52], [0.51]).f1 == pytest.approx(2 / 3)


def test_matching_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (sorted(rng.uniform(0.0, 2.0, rng.integers(0, 5))) for _ in range(2))
        assert bounce.match_impacts(a, b).f1 == bounce.match_impacts(b, a).f1
