"""Video: containers of any frame rate, shape and length to square frames, and back to MP4."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from codi.media.animation import open_animation
from codi.media.audio import Audio, require_playable
from codi.media.container import open_container, picture_stream, read_reel, sound_stream
from codi.media.errors import (
    MediaError,
    display,
    fault,
    motionless,
    require_positive,
    seconds,
    used,
)
from codi.media.files import atomic_write_bytes, open_bytes, open_media
from codi.media.framing import framing_notes, require_frames
from codi.media.image import decode_image
from codi.media.mp4 import encode_mp4
from codi.media.reel import Reel, Sampled, sample_reel
from codi.media.sniff import head_of, sniff, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

# Rates closer than this are the same rate, lengths closer than this the same length.
_SAME_FPS, _SAME_S = 0.01, 0.05


@dataclass(frozen=True, eq=False)
class Video:
    """A moving picture, with its sound where there is one.

    Attributes:
        frames: uint8 (F, H, W, 3). Frame i is the instant i / fps.
        fps: Frames per second.
        audio: Sound that begins with the first frame, or None.

    Raises:
        MediaError: frames of another shape or type, or a rate that is not positive.
    """

    frames: np.ndarray
    fps: float
    audio: Audio | None = None

    def __post_init__(self) -> None:
        require_positive(fps=self.fps)
        require_frames(self.frames)

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        sound = "silent" if self.audio is None else f"with {self.audio!r}"
        return (
            f"Video({count} frames of {width}x{height} at {self.fps:g} fps, "
            f"{seconds(self.duration_s)}, {sound})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an MP4 file; see `save_video`."""
        save_video(path, self)

    def _repr_html_(self) -> str:
        """Show a player in a notebook, with the video inside the page."""
        data = base64.b64encode(_encode(self, "video")).decode("ascii")
        return (
            '<video controls loop style="width: 256px; image-rendering: pixelated"'
            f' src="data:video/mp4;base64,{data}"></video>'
        )


def load_video(
    path: str | os.PathLike[str], *, frames: int, fps: float, size_px: int
) -> tuple[Video, list[str]]:
    """Read the beginning of a video as square frames at a fixed rate, without its sound.

    Frame i is what the file shows at i / fps seconds, by its own presentation times. A shorter
    video holds its last frame. `load_audio` reads the sound track of the same file, and the note
    says so where there is one.

    Args:
        path: MP4, MOV, MKV, WebM, AVI, GIF, animated WebP or PNG, or anything else PyAV reads.
        frames: How many frames come back.
        fps: Their rate.
        size_px: Their side.

    Returns:
        Video of `frames` frames, and at most one line that says what was changed.

    Raises:
        MediaError: no such file, no moving picture in it, damaged or cut off before the end of
            what is needed, frames larger than `MAX_FRAME_PIXELS`.
    """
    with open_media(path) as handle:
        video, changes = _read(handle, path, frames, fps, size_px)
    note = f"{display(Path(path).name)}: {', '.join(changes)}"
    return video, [note] if changes else []


def decode_video(
    data: bytes, *, frames: int, fps: float, size_px: int, name: str = "video"
) -> Video:
    """Read the beginning of a video held in memory, as `load_video` reads a file.

    Args:
        data: The bytes of a video file.
        frames: How many frames come back.
        fps: Their rate.
        size_px: Their side.
        name: What error lines call it.

    Raises:
        MediaError: as `load_video`.
    """
    return _read(open_bytes(data, name), name, frames, fps, size_px)[0]


def _read(
    handle: BinaryIO, source: str | os.PathLike[str], frames: int, fps: float, size_px: int
) -> tuple[Video, list[str]]:
    """Return a video and how it differs from its file, in words."""
    require_positive(frames=frames, fps=fps, size_px=size_px)
    times_s = [index / Fraction(fps) for index in range(frames)]
    with _opened(handle, source) as reel:
        taken = sample_reel(reel, times_s, size_px)
    if taken.seen == 0:
        raise _frameless(source)
    if taken.seen == 1:
        raise motionless(source, "save it as a PNG file and use --image")
    video = Video(np.stack([np.asarray(picture) for picture in taken.pictures]), fps)
    return video, _changes(reel, taken, video, size_px)


def load_middle_frame(path: str | os.PathLike[str], *, size_px: int) -> Image:
    """Read the frame that a video shows at half of its length, as a square picture.

    Args:
        path: as `load_video`.
        size_px: Its side.

    Raises:
        MediaError: as `load_video`, but a container of a single frame will do.
    """
    require_positive(size_px=size_px)
    total_s = _length_s(path)
    with open_media(path) as handle, _opened(handle, path) as reel:
        taken = sample_reel(reel, [Fraction(total_s) / 2], size_px)
    if not taken.pictures:
        raise _frameless(path)
    return taken.pictures[0]


def _length_s(path: str | os.PathLike[str]) -> float | Fraction:
    """Return how long a video is: as its file tells, or else by running it to its end."""
    with open_media(path) as handle, _opened(handle, path) as reel:
        if reel.total_s:
            return reel.total_s
        end_s = Fraction(0)
        for frame in reel.frames:
            end_s = frame.end_s
    return end_s


def _frameless(source: str | os.PathLike[str]) -> MediaError:
    return fault(source, "holds no frame that can be decoded", "copy it again or save it anew")


def decode_filmstrip(data: bytes, n_frames: int, *, name: str = "filmstrip") -> np.ndarray:
    """Cut a filmstrip, a picture of square frames one below the other, into its frames.

    Args:
        data: The bytes of a picture file, W wide and n_frames * W high.
        n_frames: How many frames it holds.
        name: What error lines call it.

    Returns:
        uint8 (F, W, W, 3), transparency on white.

    Raises:
        MediaError: not a picture, damaged, or of another shape.
    """
    require_positive(n_frames=n_frames)
    pixels = np.asarray(decode_image(data, name=name))
    height, width = pixels.shape[:2]
    if height != n_frames * width:
        problem = (
            f"is {width}x{height}, but {n_frames} square frames are {width}x{n_frames * width}"
        )
        raise fault(name, problem, "correct the number of frames")
    return pixels.reshape(n_frames, width, width, 3)


def save_video(path: str | os.PathLike[str], video: Video) -> None:
    """Write an MP4 file (H.264, with AAC when there is sound), all or nothing.

    Args:
        path: `.mp4`.
        video: Frames of any size; an odd width or height grows by one pixel.

    Raises:
        MediaError: another ending, samples out of range, folder not writable.
    """
    ending = Path(path).suffix.lower()
    if ending != ".mp4":
        raise fault(path, f"video is not written as '{ending}'", "end the name in .mp4")
    atomic_write_bytes(path, _encode(video, path))


def _encode(video: Video, source: str | os.PathLike[str]) -> bytes:
    if video.audio is None:
        return encode_mp4(video.frames, video.fps)
    require_playable(video.audio, source)
    return encode_mp4(video.frames, video.fps, video.audio.samples, video.audio.sample_rate_hz)


@contextmanager
def _opened(handle: BinaryIO, source: str | os.PathLike[str]) -> Iterator[Reel]:
    head = head_of(handle)
    kind, _ = sniff(head)
    if kind == "image":
        with open_animation(handle, source) as reel:
            yield reel
        return
    if kind == "text":
        raise unreadable(source, head, "video")
    with open_container(handle, source, "video") as container:
        stream = picture_stream(container)
        if stream is None:
            has_sound = sound_stream(container) is not None
            problem = "holds no moving picture" + (", only sound" if has_sound else "")
            raise fault(source, problem, "use --audio" if has_sound else "give another file")
        yield read_reel(container, stream, source)


def timing_notes(
    total_s: float | None,
    end_s: float | Fraction | None,
    fps: float,
    video: Video,
    *,
    uneven: bool = False,
) -> list[str]:
    """Say in words how a video's time differs from its source's.

    Args:
        total_s: length of the source as far as it is told.
        end_s: end of its last frame, where it was run to its end.
        fps: its rate, on average where the frames are `uneven`.
        video: what was made of it.
        uneven: whether the frames do not follow each other evenly.
    """
    notes = []
    longer = not total_s or total_s > video.duration_s + _SAME_S
    if longer and (end_s is None or end_s > video.duration_s + _SAME_S):
        notes.append(used(video.duration_s, total_s))
    if uneven:
        notes.append(f"variable frame rate (about {fps:.3g}) -> {video.fps:g} fps")
    elif abs(fps - video.fps) > _SAME_FPS:
        notes.append(f"{fps:.4g} -> {video.fps:g} fps")
    # The last frame is shown at (F - 1) / fps: a video that reaches it is long enough.
    if end_s is not None and float(end_s) * video.fps <= len(video.frames) - 1:
        notes.append(
            f"only {seconds(float(end_s))} long,"
            f" so that its last frame is held up to {seconds(video.duration_s)}"
        )
    return notes


def _changes(reel: Reel, taken: Sampled, video: Video, size_px: int) -> list[str]:
    """Say in words how the video differs from its file."""
    changes = timing_notes(reel.total_s, taken.end_s, reel.fps, video, uneven=taken.uneven)
    if reel.flattened:
        changes.append("transparency laid on white")
    if taken.rotation_deg:
        changes.append("turned upright as its rotation asks")
    if taken.pixel_aspect != 1:
        changes.append("pixels that are not square made square")
    changes += framing_notes(taken.width_px, taken.height_px, size_px, taken.pixel_aspect)
    if reel.has_sound:
        changes.append("without its sound (to use it, give the file as audio too)")
    return changes
