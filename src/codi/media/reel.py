"""A moving picture as timed frames, and its frames at given instants. Knows no file format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from codi.media.framing import to_square

if TYPE_CHECKING:
    from PIL.Image import Image

# Frames whose lengths differ by more than this factor make the rate variable; less is the
# rounding of a container that counts in milliseconds.
_UNEVEN = 1.5


@dataclass(frozen=True)
class TimedFrame:
    """A picture and when it is shown.

    Attributes:
        start_s: First instant, counted from the start of the file.
        end_s: The instant at which it goes, as far as the frame itself tells.
        pixels: Returns the upright RGB picture; costs the conversion, so call it once.
        rotation_deg: How far the picture was turned to stand upright.
    """

    start_s: Fraction
    end_s: Fraction
    pixels: Callable[[], Image]
    rotation_deg: int = 0


@dataclass(frozen=True)
class Reel:
    """A moving picture that can be run through once.

    Attributes:
        frames: In the order of presentation.
        fps: Average rate.
        tick_s: Resolution of its clock.
        total_s: Length as far as the file tells.
        pixel_aspect: Width of a pixel divided by its height, before any turning.
        has_sound: Whether its file holds a sound track as well.
        flattened: Whether its pictures have transparent parts, which are laid on white.
    """

    frames: Iterator[TimedFrame]
    fps: float
    tick_s: Fraction
    total_s: float | None = None
    pixel_aspect: float = 1.0
    has_sound: bool = False
    flattened: bool = False


@dataclass
class Sampled:
    """What `sample_reel` took, and what it learned on the way.

    Attributes:
        pictures: Square RGB pictures.
        seen: How many frames of the reel were looked at; two are enough to prove motion.
        end_s: End of the last frame, when the reel was run to its end.
        width_px: Width of the upright source.
        height_px: Height of the upright source.
        pixel_aspect: Width of a pixel divided by its height, in the upright source.
        rotation_deg: How far the source was turned.
        uneven: Whether the frames last differently long.
    """

    pictures: list[Image] = field(default_factory=list)
    seen: int = 0
    end_s: Fraction | None = None
    width_px: int = 0
    height_px: int = 0
    pixel_aspect: float = 1.0
    rotation_deg: int = 0
    uneven: bool = False


def sample_reel(reel: Reel, times_s: list[Fraction], size_px: int) -> Sampled:
    """Take what the reel shows at each instant, as square pictures.

    Before the first frame the first one is shown, after the last the last one.

    Args:
        reel: The moving picture.
        times_s: Ascending instants from the start of the file.
        size_px: Side of the pictures.
    """
    taken = Sampled()
    # A clock that counts coarsely may show a frame a little after its own instant.
    slack_s = min(reel.tick_s, (times_s[-1] - times_s[0]) / max(1, len(times_s) - 1) / 4)
    waiting = list(reversed(times_s))
    current: TimedFrame | None = None
    shortest_s = longest_s = None
    for frame in reel.frames:
        taken.seen += 1
        if current is not None:
            lasts_s = frame.start_s - current.start_s
            shortest_s = min(shortest_s or lasts_s, lasts_s)
            longest_s = max(longest_s or lasts_s, lasts_s)
        _take(taken, reel, current or frame, waiting, frame.start_s - slack_s, size_px)
        current = frame
        if not waiting and taken.seen > 1:
            break
    else:
        if current is not None:
            taken.end_s = current.end_s
            _take(taken, reel, current, waiting, None, size_px)
    taken.uneven = bool(shortest_s and longest_s and longest_s > _UNEVEN * shortest_s)
    return taken


def _take(
    taken: Sampled,
    reel: Reel,
    frame: TimedFrame,
    waiting: list[Fraction],
    before_s: Fraction | None,
    size_px: int,
) -> None:
    """Give `frame` to every waiting instant before `before_s` (None: to all that are left)."""
    square: Image | None = None
    while waiting and (before_s is None or waiting[-1] < before_s):
        waiting.pop()
        if square is None:
            image = frame.pixels()
            on_its_side = frame.rotation_deg % 180 != 0
            taken.pixel_aspect = 1 / reel.pixel_aspect if on_its_side else reel.pixel_aspect
            taken.width_px, taken.height_px = image.size
            taken.rotation_deg = frame.rotation_deg
            square = to_square(image, size_px, taken.pixel_aspect)
        taken.pictures.append(square)
