"""Media as another hand or another voice might have made them, so that few items teach more.

Pure functions of an array, a strength s and a generator. What they change must not be what captions
tell: size, place and speed vary here, so this is for drawings and voices and not for worlds that
speak of such facts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

_FULL_SCALE = 32767.0


def varied_frames(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Turn, stretch, slant and move all frames alike.

    Args:
        frames: uint8 (F, H, W, 3).
        strength: s; turns by up to 100 s degrees, sizes of e^-s ... e^s, slants of up to s,
            moves of up to s of a side. What comes in from outside has the border's median colour.
        rng: of the choice.
    """
    height, width = frames.shape[1:3]
    angle = math.radians(100.0) * strength * rng.uniform(-1, 1)
    across, down = np.exp(strength * rng.uniform(-1, 1, size=2))
    slant = strength * rng.uniform(-1, 1)
    moved = strength * rng.uniform(-1, 1, size=2) * (width, height)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[across, slant], [0.0, down]])
    centre = np.array([width, height]) / 2.0
    offset = centre - matrix @ (centre + moved)
    border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], 1)
    outside = tuple(int(c) for c in np.median(border.reshape(-1, 3), axis=0))
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return np.stack(
        [
            np.asarray(
                Image.fromarray(frame).transform(
                    (width, height),
                    Image.Transform.AFFINE,
                    data,
                    Image.Resampling.BILINEAR,
                    fillcolor=outside,
                )
            )
            for frame in frames
        ]
    )


def varied_sound(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Play a sound faster or slower, earlier or later, louder or softer.

    Args:
        samples: int16 (S,).
        strength: s; speeds of e^-s ... e^s, moves of up to s of the length, gains of e^-4s ...
            e^2s. What would be beyond the ends is silent.
        rng: of the choice.
    """
    speed = math.exp(strength * rng.uniform(-1, 1))
    at = (np.arange(len(samples)) + strength * rng.uniform(-1, 1) * len(samples)) * speed
    gain = math.exp(strength * rng.uniform(-4, 2))
    wave = np.interp(at, np.arange(len(samples)), samples, left=0.0, right=0.0) * gain
    return wave.round().clip(-_FULL_SCALE, _FULL_SCALE).astype(np.int16)


VARIATIONS: Mapping[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "image": varied_frames,
    "video": varied_frames,
    "audio": varied_sound,
}
"""How media are varied, by modality name: (array, strength, generator) -> array. Add your own."""
