"""Whether sound and picture happen at the same time, for any clip and without a learned model.

Onsets of a sound are peaks of its spectral flux; events of a clip are peaks of its optical flow.
AV-Align counts how many of either meet, and cross-correlation says by how much one runs after the
other; DeSync is of the offsets that a learned classifier says. Knows no generator and no file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from codi.audio import MelConfig, log_mel
from codi.evaluation.metrics.motion import motion
from codi.evaluation.metrics.rows import require_finite

HOP_S = 0.005
"""Time between two values of an onset strength."""

_WINDOW_S = 0.032
_BINS = 40
_WAIT_S = 0.03
_RISE = 0.1
"""How far, of the loudest onset, a peak stands above what is around it."""

_LEAST = 0.2
"""Mean rise of all bands, in nats, below which nothing begins: steady noise stays under it."""


def onset_strength(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return how much louder the bands of a sound (S,) get (T,), every `HOP_S` seconds.

    Half-wave rectified flux of a log-mel spectrogram (Böck and Widmer, 2013), from 0 to 1 of the
    strongest; silence and steady sounds give zeros.

    Raises:
        ValueError: samples that are not finite.
    """
    require_finite(samples, "samples")
    hop = max(round(HOP_S * sample_rate_hz), 1)
    window = max(round(_WINDOW_S * sample_rate_hz), 2 * hop)
    mel = MelConfig(
        sample_rate_hz, window, hop, _BINS, high_hz=sample_rate_hz / 2, floor=1e-3, low_hz=50.0
    )
    x = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None]
    if x.shape[1] < window:
        return np.zeros(0)
    level = log_mel(x, mel)[0, 0].double().numpy()  # (T, M)
    flux = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0.0).mean(axis=1)
    ends = window // hop // 2 + 1  # columns that see a reflection of the sound's own end
    flux[:ends] = flux[-ends:] = 0.0
    return flux / flux.max() if flux.max() > _LEAST else np.zeros_like(flux)


def onset_times(samples: np.ndarray, sample_rate_hz: int) -> tuple[float, ...]:
    """Return when something begins in a sound (S,), in seconds.

    Raises:
        ValueError: samples that are not finite.
    """
    strength = onset_strength(samples, sample_rate_hz)
    near = max(round(_WAIT_S / HOP_S), 1)
    wide = 4 * near
    found: list[float] = []
    for i, value in enumerate(strength):
        around = strength[max(i - near, 0) : i + near + 1]
        level = strength[max(i - wide, 0) : i + wide + 1].mean()
        first = i == max(i - near, 0) + int(around.argmax())
        if value > 0.0 and first and value >= level + _RISE:
            found.append(i * HOP_S)
    return tuple(found)


def motion_peaks(frames: np.ndarray, fps: float) -> tuple[float, ...]:
    """Return when a clip (F, H, W, 3) moves most, in seconds: peaks of its mean flow.

    A step from one frame to the next happens between them; its time is that of the later one.
    """
    flow = motion(frames)
    inner = range(1, len(flow) - 1)
    peaks = [i for i in inner if flow[i - 1] < flow[i] > flow[i + 1]]
    return tuple((i + 1) / fps for i in peaks)


def av_align(onsets_s: Sequence[float], peaks_s: Sequence[float], window_s: float) -> float:
    """Return AV-Align (Yariv et al., 2023), from 0 to 1: onsets and peaks that meet, of all.

    An event meets one of the other kind that is less than `window_s` away (a frame, in the paper).
    The mean of both counts is the intersection; all events less those are the union. The published
    code counts onsets alone (each peak once, in its newest version), and gives the same unless an
    event meets two of the other kind. A silent sound over a still clip shows no agreement, and
    scores 0: making nothing must not win.
    """
    if not len(onsets_s) and not len(peaks_s):
        return 0.0
    distance = np.abs(np.subtract.outer(np.asarray(onsets_s), np.asarray(peaks_s)))
    near = distance < window_s
    met = (near.any(axis=1).sum() + near.any(axis=0).sum()) / 2.0
    return float(met / (len(onsets_s) + len(peaks_s) - met))


def offset_s(a: np.ndarray, b: np.ndarray, hop_s: float = HOP_S, most_s: float = 1.0) -> float:
    """Return by how many seconds `b` (T,) runs after `a` (T,): the best cross-correlation's lag.

    Finer than a hop by a parabola through the three values at the top.

    Args:
        a: strength at each instant, such as `onset_strength` of a sound.
        b: that of the other, at the same instants.
        hop_s: time between two values.
        most_s: longest lag that is looked for, either way.

    Raises:
        ValueError: strengths of two lengths, or that are not finite.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(f"strengths of shapes {a.shape} and {b.shape}; take the same instants")
    for strength in (a, b):
        require_finite(strength, "strengths")
    x, y = a - a.mean(), b - b.mean()
    most = min(round(most_s / hop_s), len(a) - 1)
    full = np.correlate(y, x, mode="full")  # at lag k: sum of y[i + k] x[i]
    middle = len(a) - 1
    near = full[middle - most : middle + most + 1]
    if not near.max() > 0.0:
        return 0.0
    top = int(near.argmax())
    shift = 0.0
    if 0 < top < len(near) - 1:
        left, peak, right = near[top - 1 : top + 2]
        bend = left - 2.0 * peak + right
        shift = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return (top - most + shift) * hop_s


def desync_s(offsets_s: np.ndarray) -> np.ndarray:
    """Return DeSync (n,): how far from 0 the likeliest offset (n,) of each sound is, in seconds.

    The offsets are a learned classifier's, such as Synchformer's (Iashin et al., 2024).
    """
    return np.abs(offsets_s)
