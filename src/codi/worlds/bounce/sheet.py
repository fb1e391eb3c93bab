"""Lay clips out on one picture: frames in a row and, on the same clock, the sound below them.

Knows arrays only; saving a picture is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codi.worlds.bounce.scene import DURATION_S, SAMPLE_RATE_HZ

_PAPER = np.array((250, 250, 248), dtype=np.uint8)
_STRIP = np.array((236, 238, 241), dtype=np.uint8)
_WAVE = np.array((52, 76, 112), dtype=np.uint8)
_MARK = np.array((226, 72, 58), dtype=np.uint8)


def contact_sheet(
    videos: Sequence[np.ndarray],
    sounds: Sequence[np.ndarray],
    impact_times_s: Sequence[Sequence[float]],
    columns: int = 1,
    shown: int = 8,
    scale: int = 2,
) -> np.ndarray:
    """Return a picture (H, W, 3), uint8, of clips of two seconds in a grid of `columns`.

    Args:
        videos: frames (F, H, W, 3), uint8, of each clip, all of one size.
        sounds: samples (S,), 16 kHz, of each clip.
        impact_times_s: for each clip, the instants to mark in the sound.
        columns: clips side by side.
        shown: frames of each clip, evenly spaced from the first one.
        scale: side of a pixel of a frame on the sheet.

    Raises:
        ValueError: no clips, or lists of different lengths.
    """
    if not videos or len({len(videos), len(sounds), len(impact_times_s)}) != 1:
        raise ValueError(
            f"a sheet needs as many sounds and lists of impacts as videos, at least one; got "
            f"{len(videos)} videos, {len(sounds)} sounds and {len(impact_times_s)} lists"
        )
    cells = [
        _cell(video, sound, impacts, shown, scale)
        for video, sound, impacts in zip(videos, sounds, impact_times_s, strict=True)
    ]
    gap, (height, width) = 6 * scale, cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    sheet = np.empty((gap + rows * (height + gap), gap + columns * (width + gap), 3), np.uint8)
    sheet[:] = _PAPER
    for i, cell in enumerate(cells):
        row, column = divmod(i, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = cell
    return sheet


def _cell(
    video: np.ndarray, sound: np.ndarray, impacts: Sequence[float], shown: int, scale: int
) -> np.ndarray:
    """Return the frames of one clip over its sound."""
    chosen = video[(np.arange(shown) * len(video)) // shown]
    film = np.concatenate([f.repeat(scale, 0).repeat(scale, 1) for f in chosen], axis=1)
    film[:, film.shape[1] // shown - 1 :: film.shape[1] // shown] = _PAPER  # between two frames
    strip = _strip(sound, impacts, film.shape[1], 14 * scale, scale)
    return np.concatenate([film, strip], axis=0)


def _strip(
    sound: np.ndarray, impacts: Sequence[float], width: int, height: int, scale: int
) -> np.ndarray:
    """Return the waveform, the loudest filling the strip, with a mark at each impact."""
    count = round(DURATION_S * SAMPLE_RATE_HZ)
    padded = np.zeros(count)
    padded[: min(len(sound), count)] = sound[:count]
    edges = np.linspace(0, count, width, endpoint=False).astype(int)
    loud = np.maximum.reduceat(np.abs(padded), edges)
    reach = 0.46 * height * loud / max(float(loud.max()), 1e-6)
    rows = np.abs(np.arange(height) + 0.5 - height / 2)[:, None]
    strip = np.empty((height, width, 3), np.uint8)
    strip[:] = _STRIP
    strip[rows <= np.maximum(reach, 0.5)] = _WAVE
    for impact_s in impacts:
        at = round(impact_s / DURATION_S * width)
        strip[:, max(at - scale // 2, 0) : at - scale // 2 + scale] = _MARK
    return strip
