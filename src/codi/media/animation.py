"""Animated pictures (GIF, WebP, PNG, AVIF) through Pillow, since PyAV reads them in part only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from codi.media.errors import fault
from codi.media.image import flatten, open_picture, reading_picture
from codi.media.reel import Reel, TimedFrame
from codi.media.sniff import head_of

if TYPE_CHECKING:
    from PIL.Image import Image

# What browsers show for a frame that names no duration of its own.
_DEFAULT_MS = 100


@contextmanager
def open_animation(handle: BinaryIO, source: str | os.PathLike[str]) -> Iterator[Reel]:
    """Open an animated picture.

    Raises:
        MediaError: a single picture, or one that is damaged; inside the block too.
    """
    with reading_picture(source, head_of(handle)), open_picture(handle, source) as image:
        count = getattr(image, "n_frames", 1)
        image.load()
        if count < 2:
            raise fault(source, "is a single picture", "use --image")
        durations_ms, transparent = _looked_through(image, count)
        total_s = sum(durations_ms) / 1000
        frames = _frames(image, durations_ms)
        yield Reel(frames, count / total_s, Fraction(1, 1000), total_s, flattened=transparent)


def _looked_through(image: Image, count: int) -> tuple[list[int], bool]:
    """Return how long each frame is shown, and whether a frame has transparent parts."""
    durations, transparent = [], False
    for index in range(count):
        image.seek(index)
        image.load()  # some formats learn the duration only now
        durations.append(round(image.info.get("duration") or _DEFAULT_MS))
        if not transparent and image.has_transparency_data:
            transparent = image.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    return durations, transparent


def _frames(image: Image, durations_ms: list[int]) -> Iterator[TimedFrame]:
    start_ms = 0
    for index, duration_ms in enumerate(durations_ms):
        image.seek(index)
        still = image.copy()
        end_ms = start_ms + duration_ms
        yield TimedFrame(Fraction(start_ms, 1000), Fraction(end_ms, 1000), partial(flatten, still))
        start_ms = end_ms
