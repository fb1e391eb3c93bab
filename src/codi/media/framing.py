"""How a picture of any shape becomes a square one. Pure geometry and one resampling filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from codi.media.errors import MediaError, require_positive

if TYPE_CHECKING:
    from PIL.Image import Image


class Box(NamedTuple):
    """A rectangle of pixels: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int


def centre_square(width_px: int, height_px: int, pixel_aspect: float = 1.0) -> Box:
    """Return the largest centred rectangle that is a square on the screen.

    Args:
        width_px: Stored width.
        height_px: Stored height.
        pixel_aspect: Width of one pixel divided by its height (1 except in old video formats).
    """
    side = min(width_px * pixel_aspect, height_px)
    across = max(1, min(width_px, round(side / pixel_aspect)))
    down = max(1, min(height_px, round(side)))
    left, top = (width_px - across) // 2, (height_px - down) // 2
    return Box(left, top, left + across, top + down)


def to_square(image: Image, size_px: int, pixel_aspect: float = 1.0) -> Image:
    """Crop an RGB picture to its central square and resize it, antialiased (Lanczos)."""
    from PIL.Image import Resampling

    box = centre_square(image.width, image.height, pixel_aspect)
    if box == (0, 0, size_px, size_px) == (0, 0, image.width, image.height):
        return image
    return image.resize((size_px, size_px), Resampling.LANCZOS, box=box)


def framing_notes(
    width_px: int, height_px: int, size_px: int, pixel_aspect: float = 1.0
) -> list[str]:
    """Say in words what `to_square` does to a picture of this shape."""
    box = centre_square(width_px, height_px, pixel_aspect)
    across, down = box.right - box.left, box.bottom - box.top
    notes = []
    if (across, down) != (width_px, height_px):
        notes.append(f"centre crop {across}x{down} of {width_px}x{height_px}")
    if (across, down) != (size_px, size_px):
        notes.append(f"resized to {size_px}x{size_px}")
    return notes


def resize_frames(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Crop every frame to its central square and resize it.

    Args:
        frames: uint8 (F, H, W, 3).
        size_px: Side of the square that comes back.

    Returns:
        uint8 (F, size_px, size_px, 3).
    """
    from PIL import Image

    require_positive(size_px=size_px)
    require_frames(frames)
    return np.stack([np.asarray(to_square(Image.fromarray(f), size_px)) for f in frames])


def require_frames(frames: np.ndarray) -> None:
    """Reject anything but a non-empty uint8 array of shape (F, H, W, 3).

    Raises:
        MediaError: naming the shape and type that came.
    """
    if not isinstance(frames, np.ndarray):
        raise MediaError(f"frames are {type(frames).__name__}; give a uint8 array (F, H, W, 3)")
    if frames.dtype != np.uint8:
        raise MediaError(
            f"frames hold {frames.dtype} numbers; give uint8, 0 to 255"
            " (x.clip(0, 1) * 255, rounded)"
        )
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise MediaError(f"frames have shape {frames.shape}; give (F, H, W, 3), none of them 0")
