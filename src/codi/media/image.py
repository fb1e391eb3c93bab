"""Pictures: files of any size, shape and colour mode to square RGB, and back to files."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from codi.media.errors import MediaError, display, fault, reason, require_positive
from codi.media.files import atomic_write_bytes, open_bytes, open_media
from codi.media.framing import framing_notes, to_square
from codi.media.sniff import head_of, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 128_000_000
"""The largest picture that is decoded; beyond it, a small file could fill the memory."""

# Formats whose contents begin with a signature. Some others (EPS) would start other programs.
_READABLE_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_ORIENTATION_TAG = 0x0112
_ICC_KEY = "icc_profile"
# Pillow keeps 8 of the 16 bits of these layouts, and only what it has yet to decode names one.
_16_BIT_COLOUR = re.compile(r";16[BLN]\b")
# These count their frames by decoding them, which undoes what was drawn on the picture meanwhile.
_COUNTED_BY_DECODING = ("GIF", "TIFF")

_NARROWED = "reduced to 8 bits"
# What notes and errors call a picture without a file.
_OBJECT = "image"

# File ending -> (Pillow's format, its options). WebP and PNG keep every pixel.
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".gif": ("GIF", {}),
}


def load_image(path: str | os.PathLike[str], *, size_px: int) -> tuple[Image, list[str]]:
    """Read a picture as a square: upright, RGB, transparency on white, centre crop, resized.

    Args:
        path: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PPM.
        size_px: Side of the square.

    Returns:
        RGB picture of size_px x size_px, and at most one line that says what was changed.

    Raises:
        MediaError: no such file, not a picture, damaged, or larger than `MAX_PIXELS`.
    """
    require_positive(size_px=size_px)
    with open_media(path) as handle:
        image, changes = _decode(handle, path)
    return _squared(image, changes, size_px, display(Path(path).name))


def fit_image(image: Image, size_px: int) -> tuple[Image, list[str]]:
    """Make of a Pillow picture what `load_image` makes of its file: the same pixels and notes.

    A picture that is decoded already no longer tells that its file had 16-bit colours, nor, as a
    GIF or TIFF, that it had other frames. An orientation in its EXIF data is followed, which is
    right after `Image.open` and `convert`; `ImageOps.exif_transpose` follows and removes it.

    Args:
        image: A picture of any mode and size, which stays as it is; of an animation, the frame
            that it stands at is used.
        size_px: Side of the square.

    Returns:
        RGB picture of size_px x size_px, and at most one line that says what was changed.

    Raises:
        MediaError: no pixels, more than `MAX_PIXELS`, a damaged or closed file behind it, or a
            mode that does not become RGB.
    """
    require_positive(size_px=size_px)
    with reading_picture(_OBJECT, None):
        _require_sane_size(image, _OBJECT)
        rgb, changes = _upright_rgb(image, _OBJECT)
    return _squared(rgb, changes, size_px, _OBJECT)


def _squared(image: Image, changes: list[str], size_px: int, name: str) -> tuple[Image, list[str]]:
    changes = changes + framing_notes(image.width, image.height, size_px)
    return to_square(image, size_px), [f"{name}: {', '.join(changes)}"] if changes else []


def decode_image(data: bytes, *, name: str = "image") -> Image:
    """Read a picture held in memory as RGB: upright, transparency on white, size as it is.

    Args:
        data: The bytes of a picture file.
        name: What error lines call it.

    Raises:
        MediaError: not a picture, damaged, or larger than `MAX_PIXELS`.
    """
    return _decode(open_bytes(data, name), name)[0]


def save_image(path: str | os.PathLike[str], image: Image | np.ndarray) -> None:
    """Write a picture, all or nothing; the ending of `path` chooses the format.

    Args:
        path: `.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp` or `.gif`.
        image: A Pillow picture, uint8 (H, W, 3), or floats (H, W, 3) in [0, 1].

    Raises:
        MediaError: unknown ending, array of another shape or range, folder not writable.
    """
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        known = ", ".join(_WRITERS)
        raise fault(path, f"pictures are not written as '{ending}'", f"end the name in {known}")
    image_format, options = _WRITERS[ending]
    picture = _from_array(path, image) if isinstance(image, np.ndarray) else image
    if image_format in ("JPEG", "BMP"):
        picture = flatten(picture)
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=image_format, **options)
    except (OSError, ValueError) as error:
        raise fault(path, f"cannot be written ({reason(error)})", "convert it to RGB") from error
    atomic_write_bytes(path, buffer.getvalue())


def _from_array(path: str | os.PathLike[str], pixels: np.ndarray) -> Image:
    from PIL import Image as PillowImage

    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise fault(path, f"the picture's array has shape {pixels.shape}", "give (H, W, 3)")
    if pixels.dtype == np.uint8:
        return PillowImage.fromarray(pixels)
    if pixels.dtype.kind != "f":
        raise fault(path, f"the picture holds {pixels.dtype} numbers", "give uint8 or floats")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails it
        problem = f"the picture's numbers run from {low:g} to {high:g}"
        raise fault(path, problem, "give floats in [0, 1] without NaN")
    return PillowImage.fromarray(np.round(pixels * 255).astype(np.uint8))


def _decode(handle: BinaryIO, source: str | os.PathLike[str]) -> tuple[Image, list[str]]:
    """Return the whole picture as upright RGB, and what was done for it."""
    head = head_of(handle)
    with reading_picture(source, head), open_picture(handle, source) as image:
        return _upright_rgb(image, source)


def _upright_rgb(image: Image, source: str | os.PathLike[str]) -> tuple[Image, list[str]]:
    """Return a new upright RGB picture of a picture of any mode, and what was done for it."""
    changes: list[str] = []
    count = _frame_count(image)
    if count > 1:
        at = image.tell()
        changes.append(f"used {f'frame {at + 1}' if at else 'the first'} of its {count} frames")
    if image.mode not in _WIDE_SCALES and _holds_16_bit_colour(image):
        changes.append(_NARROWED)
    image.load()
    upright = _turn_upright(image, changes)
    rgb = _to_rgb(_to_srgb(upright, changes), source, changes)
    rgb.info.clear()  # orientation, profile and transparency are dealt with: never do it twice
    return rgb, changes


def _frame_count(image: Image) -> int:
    if image.format == "MPO":  # a photograph with its preview is one picture
        return 1
    if image.format in _COUNTED_BY_DECODING and not getattr(image, "tile", None):
        return 1
    return getattr(image, "n_frames", 1)


def _holds_16_bit_colour(image: Image) -> bool:
    """Say whether a picture that is not decoded yet has 16-bit colours in its file."""
    tiles: Any = getattr(image, "tile", ())  # each: decoder, box, offset, layout and more
    return any(_16_BIT_COLOUR.search(str(tile[3])) for tile in tiles[:1])


@contextmanager
def reading_picture(source: str | os.PathLike[str], head: bytes | None) -> Iterator[None]:
    """Turn whatever Pillow raises in the block into a `MediaError`, and keep its warnings quiet.

    Args:
        source: What error lines call the picture.
        head: The first bytes of its file; None for a picture that somebody else opened.
    """
    from PIL import Image as PillowImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MediaError:
        raise
    except PillowImage.DecompressionBombError as error:
        raise _too_large(source, "more than 170 million") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more.
    except Exception as error:
        if head is None:
            problem = f"cannot be read ({reason(error)})"
            mend = "check that its file is whole and still open, or convert it to RGB"
            raise fault(source, problem, mend) from error
        raise unreadable(source, head, "image", error) from error


def open_picture(handle: BinaryIO, source: str | os.PathLike[str]) -> Image:
    """Read a picture's header with Pillow, and refuse it when it is too large to decode."""
    from PIL import Image as PillowImage

    PillowImage.init()
    known = [name for name in _READABLE_FORMATS if name in PillowImage.OPEN]
    image = PillowImage.open(handle, formats=known)
    _require_sane_size(image, source)
    return image


def _require_sane_size(image: Image, source: str | os.PathLike[str]) -> None:
    size = f"{image.width}x{image.height}"
    if not image.width * image.height:
        raise fault(source, f"has no pixels ({size})", "give another picture")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(source, size)


def _too_large(source: str | os.PathLike[str], size: str) -> MediaError:
    limit = f"{MAX_PIXELS // 1_000_000} million"
    return fault(source, f"has {size} pixels, the limit is {limit}", "make the picture smaller")


def _turn_upright(image: Image, changes: list[str]) -> Image:
    """Undo the camera's orientation. A damaged EXIF block is no reason to refuse the picture."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        changes.append("its EXIF data is damaged, so that any rotation in it was ignored")
        return image
    if turn is None:
        return image
    changes.append("turned upright as its EXIF orientation asks")
    turned = image.transpose(turn)
    turned.info.update(image.info)  # the colour profile and transparent colour stay with it
    return turned


def _to_srgb(image: Image, changes: list[str]) -> Image:
    """Convert RGB and CMYK pictures from their own colour profile to sRGB."""
    profile_bytes = image.info.get(_ICC_KEY)
    if not profile_bytes or image.mode not in ("RGB", "CMYK"):
        return image
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        label = display(ImageCms.getProfileDescription(profile).strip())
        space = profile.profile.xcolor_space.strip()
        if space != image.mode:  # kept from a mode that the picture was converted from
            changes.append(f"its colour profile is one of {display(space)} and was ignored")
            return image
        if image.mode == "RGB" and "srgb" in label.lower():
            return image
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        changes.append("its colour profile is damaged and was ignored")
        return image
    if converted is None:
        return image
    if "transparency" in image.info:
        converted.info["transparency"] = image.info["transparency"]
    changes.append(f"colours converted from '{label}' to sRGB")
    return converted


def _to_rgb(image: Image, source: str | os.PathLike[str], changes: list[str]) -> Image:
    if image.mode in _WIDE_SCALES:
        return _narrow(image, source, changes)
    if image.has_transparency_data:
        flat = image.convert("RGBA")
        if flat.getchannel("A").getextrema() != (255, 255):
            changes.append("transparency laid on white")
        return flatten(flat)
    if image.mode == "CMYK":
        changes.append("CMYK converted to RGB")
    return image.convert("RGB")


def flatten(image: Image) -> Image:
    """Return an RGB picture, with whatever was transparent laid on white."""
    from PIL import Image as PillowImage

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = PillowImage.new("RGBA", layer.size, "white")
    return PillowImage.alpha_composite(ground, layer).convert("RGB")


def _scale_16_bit(_: float) -> float:
    return 255 / 65535


def _scale_by_peak(peak: float) -> float:
    """Guess the range of numbers without a declared one: 0..1, 0..255, 16 bit, or their peak."""
    return 255 / next((top for top in (1.0, 255.0, 65535.0) if peak <= top), peak)


# Modes with more than 8 bits, which Pillow's own conversion would cut off at 255.
_WIDE_SCALES: dict[str, Callable[[float], float]] = {
    "I;16": _scale_16_bit,
    "I;16L": _scale_16_bit,
    "I;16B": _scale_16_bit,
    "I;16N": _scale_16_bit,
    "I": _scale_by_peak,
    "F": _scale_by_peak,
}


def _narrow(image: Image, source: str | os.PathLike[str], changes: list[str]) -> Image:
    from PIL import Image as PillowImage

    grey = np.asarray(image).astype(np.float32)
    if not np.isfinite(grey).all():
        raise fault(source, "holds pixels that are not numbers (NaN or inf)", "save it anew")
    bright = np.clip(grey * _WIDE_SCALES[image.mode](float(grey.max())), 0, 255)
    changes.append(_NARROWED)
    return PillowImage.fromarray(np.round(bright).astype(np.uint8)).convert("RGB")
