"""Read the facts back from any medium, and say how well impacts agree.

Plain signal processing that draws and strikes what it compares with; no learned model. Nothing here
raises on a bad medium: an oracle of generated things must answer, if only with a bad guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codi.worlds.bounce import hearing, seeing
from codi.worlds.bounce.facts import Facts
from codi.worlds.bounce.falling import impacts_from_heights
from codi.worlds.bounce.scene import INTERVAL_S, RESTITUTION, SAMPLE_RATE_HZ, SIZE_PX

_MOST_FRAMES = 128
_SHORTEST_SAMPLES, _LONGEST_S = 4_000, 60


@dataclass(frozen=True)
class Reading:
    """What a clip shows: facts, and when the object touches the floor, ascending, in seconds."""

    facts: Facts
    impact_times_s: tuple[float, ...]


@dataclass(frozen=True)
class ImpactMatch:
    """How well two lists of impacts agree.

    Attributes:
        f1: twice the number of pairs over the number of impacts of both; 0 when both are empty.
        offsets_s: for each pair, the second time minus the first.
    """

    f1: float
    offsets_s: tuple[float, ...]


def read_image(picture: np.ndarray) -> Facts:
    """Return the facts that a picture (H, W, 3), uint8, shows."""
    return seeing.see(_as_frames(np.asarray(picture)[None])).facts


def read_video(frames: np.ndarray, fps: float) -> Reading:
    """Return what a clip (F, H, W, 3), uint8, shows at `fps` frames a second; 128 at most."""
    sight = seeing.see(_as_frames(np.asarray(frames)[:_MOST_FRAMES]))
    impacts = impacts_from_heights(sight.heights_px(), min(max(fps, 1.0), 240.0))
    return Reading({**sight.facts, "tempo": _tempo(impacts)}, impacts)


def read_audio(samples: np.ndarray, sample_rate_hz: int) -> Reading:
    """Return what a sound (S,) or (channels, S) with values in [-1, 1] lets hear; 60 s at most."""
    facts, impacts = hearing.hear(_as_samples(np.asarray(samples), sample_rate_hz))
    return Reading({**facts, "tempo": _tempo(impacts)}, impacts)


def match_impacts(
    a: Sequence[float], b: Sequence[float], tolerance_s: float = 0.125
) -> ImpactMatch:
    """Pair impacts of `a` and `b` that lie within `tolerance_s`, one to one, as many as possible.

    >>> match_impacts([0.5, 1.0], [0.6, 1.5]).f1
    0.5
    """
    first, second = sorted(a), sorted(b)
    offsets: list[float] = []
    i = j = 0
    while i < len(first) and j < len(second):
        offset = second[j] - first[i]
        if abs(offset) <= tolerance_s:
            offsets.append(offset)
        # An impact that came too early for the other list can pair with nothing later in it.
        i += offset >= -tolerance_s
        j += offset <= tolerance_s
    both = len(first) + len(second)
    return ImpactMatch(2.0 * len(offsets) / both if both else 0.0, tuple(offsets))


def _tempo(impacts: Sequence[float]) -> str:
    """Return the tempo whose intervals are nearest, each later one shorter by the restitution."""
    intervals = np.diff(impacts)
    if len(intervals) == 0:
        return "slow"  # the only tempo at which a second impact can fail to be seen
    usual = 0.5 * (RESTITUTION[0] + RESTITUTION[1])
    first = float(np.median(intervals / usual ** np.arange(len(intervals))))
    return min(INTERVAL_S, key=lambda tempo: abs(np.log(first / INTERVAL_S[tempo])))


def _as_frames(frames: np.ndarray) -> np.ndarray:
    """Return any stack of pictures as (F, 64, 64, 3), float32, by the nearest pixels."""
    frames = np.nan_to_num(frames.astype(np.float32))
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4 or 0 in frames.shape:
        return np.zeros((1, SIZE_PX, SIZE_PX, 3), dtype=np.float32)
    frames = frames[..., :3] if frames.shape[-1] >= 3 else frames[..., [0, 0, 0]]
    if frames.shape[1:3] != (SIZE_PX, SIZE_PX):
        rows, columns = (
            ((np.arange(SIZE_PX) + 0.5) * side / SIZE_PX).astype(int) for side in frames.shape[1:3]
        )
        frames = frames[:, rows][:, :, columns]
    return frames


def _as_samples(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return any sound as (S,), float32, 16 kHz, by straight lines between samples."""
    if not samples.size:
        return np.zeros(_SHORTEST_SAMPLES, dtype=np.float32)
    samples = np.nan_to_num(np.atleast_1d(samples).astype(np.float32))
    mono = samples.reshape(-1, samples.shape[-1]).mean(0)
    if sample_rate_hz != SAMPLE_RATE_HZ:
        count = int(len(mono) * SAMPLE_RATE_HZ / sample_rate_hz)
        at = np.arange(count) * (sample_rate_hz / SAMPLE_RATE_HZ)
        mono = np.interp(at, np.arange(len(mono)), mono).astype(np.float32)
    mono = mono[: _LONGEST_S * SAMPLE_RATE_HZ]
    return np.pad(mono, (0, max(_SHORTEST_SAMPLES - len(mono), 0)))
