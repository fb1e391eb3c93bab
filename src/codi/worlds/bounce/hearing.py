"""Hear impacts, and what it was that struck: onsets, and the likeliest of the world's own sounds.

Onsets are jumps of the compressed spectrum. Around them, the log-mel profile is compared with that
of every material and size, synthesised at several pitches. Knows sounds only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from codi.worlds.bounce import sound
from codi.worlds.bounce.facts import FACTS, Facts
from codi.worlds.bounce.scene import SAMPLE_RATE_HZ

_WINDOW = 512
_HOP = 80
_BANDS = 48
_RANGE = 5.0  # natural log: what lies further below the loudest is silence
_BEFORE, _AFTER = 3, 50  # hops of a profile around an onset
_PITCHES = (0.97, 1.0, 1.03)
_LAG = 3
_ABOVE_NOISE = 0.7  # natural log: where a band counts as more than its usual noise
_LATER_S = 0.0055  # a window rises the most before its middle reaches the onset
_SHORTEST_HOPS = int(0.3 * SAMPLE_RATE_HZ / _HOP)


def hear(samples: np.ndarray) -> tuple[Facts, tuple[float, ...]]:
    """Return material and size, and the onsets in seconds, of `samples` (S,) at 16 kHz."""
    spectrum = _log_mel(samples)
    noise = np.quantile(spectrum, 0.3, axis=0) + _ABOVE_NOISE  # (bands,)
    clear = np.maximum(spectrum, noise)
    onsets = _onsets(clear)
    at = [round(onset) for onset in onsets] or [0]
    profile = np.mean([_profile(clear, i) for i in at], axis=0)
    loudest = np.mean([_peak(clear, i) for i in at])
    material, size = _likeliest(profile, noise - loudest)
    seconds = tuple(float(onset * _HOP / SAMPLE_RATE_HZ + _LATER_S) for onset in onsets)
    return {"material": material, "size": size}, seconds


@lru_cache
def _filters() -> np.ndarray:
    """Return triangular filters (bands, bins): even below 1 kHz, then even in the logarithm."""
    split_hz, top_hz = 1_000.0, 7_600.0
    octaves = np.log(top_hz / split_hz)
    low = round(_BANDS / (1.0 + octaves))
    edges = np.concatenate(
        [
            np.linspace(60.0, split_hz, low, endpoint=False),
            split_hz * np.exp(octaves * np.linspace(0.0, 1.0, _BANDS + 2 - low)),
        ]
    )
    bins = np.fft.rfftfreq(_WINDOW, 1.0 / SAMPLE_RATE_HZ)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.asarray(np.minimum(rising, falling).clip(min=0.0), dtype=np.float32)


def _log_mel(samples: np.ndarray) -> np.ndarray:
    """Return (frames, bands): natural log of the bands over the loudest, in [-_RANGE, 0]."""
    padded = np.pad(samples.astype(np.float32), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    bands = np.abs(np.fft.rfft(frames * window)).astype(np.float32) @ _filters().T
    loudest = max(float(bands.max()), 1e-9)
    return np.log(np.maximum(bands / loudest, np.float32(np.exp(-_RANGE))))


def _onsets(spectrum: np.ndarray) -> list[float]:
    """Return the onsets, in hops: maxima of how much the bands rise, refined by a parabola."""
    rise = np.zeros(len(spectrum))
    ahead, behind = spectrum[_LAG:], spectrum[:-_LAG]
    rise[_LAG // 2 + 1 : len(ahead) + _LAG // 2 + 1] = np.maximum(ahead - behind, 0.0).mean(1)
    rise = np.convolve(rise, [0.25, 0.5, 0.25], mode="same")
    found: list[float] = []
    free = rise.copy()
    while free.max() > max(0.35 * rise.max(), 0.2):
        i = int(free.argmax())
        free[max(i - _SHORTEST_HOPS, 0) : i + _SHORTEST_HOPS] = 0.0
        found.append(i + _vertex(rise[max(i - 1, 0) : i + 2]))
    return sorted(found)


def _vertex(around: np.ndarray) -> float:
    """Return where the parabola through three values is highest, from the middle one."""
    if len(around) < 3 or around[0] + around[2] - 2.0 * around[1] >= 0.0:
        return 0.0
    return float(0.5 * (around[0] - around[2]) / (around[0] + around[2] - 2.0 * around[1]))


def _around(spectrum: np.ndarray, onset: int) -> np.ndarray:
    padded = np.pad(spectrum, ((_BEFORE, _AFTER), (0, 0)), constant_values=-_RANGE)
    return padded[onset : onset + _BEFORE + _AFTER]


def _peak(spectrum: np.ndarray, onset: int) -> float:
    return float(_around(spectrum, onset).max())


def _profile(spectrum: np.ndarray, onset: int) -> np.ndarray:
    """Return (_BEFORE + _AFTER, bands) around an onset, over its own loudest band."""
    return np.maximum(_around(spectrum, onset) - _peak(spectrum, onset), -_RANGE)


@lru_cache
def _templates() -> tuple[tuple[tuple[str, str], ...], np.ndarray]:
    """Return the (material, size) and the profile of every sound of the world at every pitch."""
    names, profiles = [], []
    start = 40 * _HOP
    for material in FACTS["material"]:
        for size in FACTS["size"]:
            for pitch in _PITCHES:
                rng = np.random.default_rng(0)
                samples = sound.NOISE_FLOOR * rng.standard_normal(2 * start + 8_000)
                struck = sound.strike(material, sound.PITCH_HZ[size] * pitch, rng)
                samples[start : start + len(struck)] += sound.PEAK * struck
                names.append((material, size))
                profiles.append(_profile(_log_mel(samples), 40))
    return tuple(names), np.stack(profiles)


def _likeliest(profile: np.ndarray, noise: np.ndarray) -> tuple[str, str]:
    """Return the material and size nearest to a profile; `noise` (bands,) hides what is below."""
    names, profiles = _templates()
    return names[int(((np.maximum(profiles, noise) - profile) ** 2).sum((1, 2)).argmin())]
