"""Media containers, read through PyAV: timed pictures and sound.

Knows times, pixels and samples; knows nothing of what the caller wants to do with them. Decoding
runs on one thread, so that the same file gives the same arrays.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from codi.media.errors import cut_off, fault, promise, seconds
from codi.media.reel import Reel, TimedFrame
from codi.media.sniff import head_of, unreadable

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Image

MAX_FRAME_PIXELS = 64_000_000
"""The largest video frame that is decoded (8K has 33 million pixels)."""

# Only these are opened, which hold all of their data themselves: playlists and the like would make
# the library read other files.
_READABLE_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,yuv4mpegpipe,nut,ivf,"
    "mxf,wtv,gxf,dv,rm,swf,h264,hevc,mpegvideo,m4v,obu,"
    "mp3,aac,flac,wav,w64,aiff,caf,amr,ac3,eac3,au,wv,tta"
)
# Containers whose header declares a length that can be held against what is there.
_DECLARES_LENGTH = ("mp4", "matroska", "avi", "flac")
# What the decoder library itself assumes for a stream that names no rate.
_UNTOLD_FPS = 25
_UNDECODABLE = {
    "video": ("picture", "convert it to an MP4 file with H.264"),
    "audio": ("sound", "convert it to a WAV file"),
}
_DURATION_TAG = re.compile(r"([0-9]+):([0-9]+):([0-9]+\.?[0-9]*)")
_MICROSECONDS = 1_000_000
# Less than this missing from the declared end is the rounding of the container, not a cut.
_END_SLACK_S = Fraction(1, 10)
# Timestamps of sound may jitter by this much before it counts as a gap.
_GAP_S = Fraction(1, 20)
# A longer silence between two blocks is a damaged clock, and would only fill the memory.
_LONGEST_GAP_S = 3600


@contextmanager
def open_container(
    handle: BinaryIO, source: str | os.PathLike[str], wanted: str
) -> Iterator[InputContainer]:
    """Open a container, and turn what PyAV raises about it inside the block into `MediaError`.

    Args:
        handle: The open file, without a name.
        source: The file as the user named it, for error lines.
        wanted: "video" or "audio", for error lines.
    """
    import av

    head = head_of(handle)
    try:
        with av.open(
            handle,
            "r",
            metadata_errors="replace",
            options={"format_whitelist": _READABLE_FORMATS, "protocol_whitelist": "none"},
        ) as container:
            yield container
    except av.error.FFmpegError as error:
        raise unreadable(source, head, wanted, error) from error


def sound_stream(container: InputContainer) -> AudioStream | None:
    """Return the first sound track, None without one."""
    return container.streams.audio[0] if container.streams.audio else None


def picture_stream(container: InputContainer) -> VideoStream | None:
    """Return the first moving picture, None without one: the cover of an album is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def length_s(container: InputContainer, stream: Stream) -> float | None:
    """Return how long a stream lasts as far as its container tells, in seconds."""
    if stream.duration is not None and stream.duration > 0 and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and container.duration > 0:
        return container.duration / _MICROSECONDS
    return None


def _start_s(container: InputContainer) -> Fraction:
    """Return the common zero of all streams; what lies before 0 is an encoder's run-up."""
    return max(Fraction(0), Fraction(container.start_time or 0, _MICROSECONDS))


def read_reel(
    container: InputContainer, stream: VideoStream, source: str | os.PathLike[str]
) -> Reel:
    """Return a moving picture, to be run through while the container is open.

    Raises:
        MediaError: frames are too large; while it runs, also when the file ends before the
            length that it declares.
    """
    _require_decoder(stream, source)
    _require_sane_size(stream, source)
    stream.codec_context.thread_type = "NONE"
    # The average of DV and GXF files is the tick of their clock, which is finer than their frames.
    told = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    rate = Fraction(min(told, default=_UNTOLD_FPS))
    return Reel(
        frames=_timed_frames(container, stream, 1 / rate, source),
        fps=float(rate),
        tick_s=stream.time_base or Fraction(1, 1000),
        total_s=length_s(container, stream),
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
        has_sound=sound_stream(container) is not None,
    )


def _timed_frames(
    container: InputContainer,
    stream: VideoStream,
    step_s: Fraction,
    source: str | os.PathLike[str],
) -> Iterator[TimedFrame]:
    from av.format import Flags

    zero_s, end_s = _start_s(container), Fraction(0)
    # A raw stream has no clock, whatever the library counts for it.
    clockless: Any = Flags.no_timestamps  # which the library's stubs call another kind of thing
    has_clock = not container.format.flags & clockless.value
    for frame in _picture_frames(container, stream, source):
        if not has_clock or frame.pts is None or frame.time_base is None:
            start_s = end_s
            end_s = start_s + step_s
        else:
            start_s = frame.pts * frame.time_base - zero_s
            end_s = start_s + (frame.duration * frame.time_base if frame.duration else step_s)
        yield TimedFrame(start_s, end_s, _Pixels(frame), frame.rotation)
    _require_whole(container, stream, end_s, source)


@dataclass(frozen=True)
class _Pixels:
    frame: VideoFrame

    def __call__(self) -> Image:
        return _upright_rgb(self.frame)


def _upright_rgb(frame: VideoFrame) -> Image:
    from av.video.reformatter import Colorspace
    from PIL import Image as PillowImage

    # HD video that names no colour matrix means BT.709, as every player takes it.
    unnamed_hd = frame.colorspace == 2 and frame.height >= 720
    matrix = Colorspace.ITU709 if unnamed_hd else None
    if any(component.is_alpha for component in frame.format.components):
        layer = PillowImage.fromarray(frame.to_ndarray(format="rgba", src_colorspace=matrix))
        ground = PillowImage.new("RGBA", layer.size, "white")
        image = PillowImage.alpha_composite(ground, layer).convert("RGB")
    else:
        image = PillowImage.fromarray(frame.to_ndarray(format="rgb24", src_colorspace=matrix))
    turns = {
        90: PillowImage.Transpose.ROTATE_90,
        180: PillowImage.Transpose.ROTATE_180,
        270: PillowImage.Transpose.ROTATE_270,
    }
    turn = turns.get(frame.rotation % 360)
    return image if turn is None else image.transpose(turn)


def _require_decoder(stream: Stream, source: str | os.PathLike[str]) -> None:
    if stream.codec_context is None:
        what, mend = _UNDECODABLE[stream.type]
        raise fault(source, f"its {what} is encoded in a way that no decoder here knows", mend)


def _require_sane_size(stream: VideoStream, source: str | os.PathLike[str]) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        limit = f"{MAX_FRAME_PIXELS // 1_000_000} million pixels"
        raise fault(
            source, f"has frames of {width}x{height}, the limit is {limit}", "scale it down"
        )


def _packets(
    container: InputContainer, stream: Stream, source: str | os.PathLike[str]
) -> Iterator[Packet]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            near_s = float((packet.pts or 0) * (packet.time_base or 0))
            raise cut_off(source, f"its data break off near {seconds(near_s)}")
        yield packet


def _picture_frames(
    container: InputContainer, stream: VideoStream, source: str | os.PathLike[str]
) -> Iterator[VideoFrame]:
    for packet in _packets(container, stream, source):
        yield from stream.decode(packet)


def _sound_frames(
    container: InputContainer, stream: AudioStream, source: str | os.PathLike[str]
) -> Iterator[AudioFrame]:
    import av

    for packet in _packets(container, stream, source):
        try:
            yield from stream.decode(packet)
        except av.error.InvalidDataError:
            # MP3's frames stand alone, and its files end in tags of many kinds: pass over what is
            # none, as players do.
            if container.format.name != "mp3":
                raise


def _require_whole(
    container: InputContainer, stream: Stream, end_s: Fraction, source: str | os.PathLike[str]
) -> None:
    """Hold the end of the last frame against the length that the header declares."""
    if not any(name in container.format.name for name in _DECLARES_LENGTH):
        return
    declared_s = _declared_end_s(container, stream)
    if declared_s is not None and end_s + _END_SLACK_S + declared_s / 100 < declared_s:
        raise cut_off(source, promise(declared_s, float(end_s)))


def _declared_end_s(container: InputContainer, stream: Stream) -> float | None:
    if "avi" in container.format.name and stream.type == "video":
        # The library shortens the duration of a cut file, but keeps the number of its frames.
        return float(stream.frames / (stream.average_rate or _UNTOLD_FPS))
    if stream.duration:
        return length_s(container, stream)
    # Matroska declares the length of the longest stream; it binds this one when it is alone,
    # and its writers note each stream's own length as a tag.
    tag = _DURATION_TAG.match(stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, rest = tag.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return length_s(container, stream) if len(container.streams) == 1 else None


@dataclass(frozen=True)
class Sound:
    """Sound as a file holds it.

    Attributes:
        samples: float32 (S, C), the beginning of the sound.
        sample_rate_hz: Samples per second.
        total_s: Length of the whole sound as far as the file tells.
    """

    samples: np.ndarray
    sample_rate_hz: int
    total_s: float | None


def read_sound(
    container: InputContainer, source: str | os.PathLike[str], need_s: float | None
) -> Sound | None:
    """Decode the beginning of the first sound track; None when the container has none.

    The samples lie on the container's own clock: silence stands before a track that starts later
    than the picture and in its gaps, and an encoder's run-up and padding are cut.

    Args:
        container: An open container.
        source: The file, for error lines.
        need_s: Seconds that are needed, None for all; more may come back, less when the sound is
            shorter.
    """
    stream = sound_stream(container)
    if stream is None:
        return None
    _require_decoder(stream, source)
    stream.codec_context.thread_type = "NONE"
    rate, zero_s = stream.codec_context.sample_rate, _start_s(container)
    need = sys.maxsize if need_s is None else ceil(need_s * rate)
    chunks: list[np.ndarray] = []
    have = 0  # samples (S) so far
    for frame in _sound_frames(container, stream, source):
        if frame.sample_rate != rate or (chunks and _channels(frame) != chunks[0].shape[1]):
            raise fault(source, "its sound changes its format half-way", "save it anew")
        chunk = _samples(frame)
        if frame.pts is not None and frame.time_base is not None:
            begin = round((frame.pts * frame.time_base - zero_s) * rate)
            gap = begin - have
            if gap < 0 and have == 0:
                chunk = chunk[-gap:]
            elif gap > 0 and (have == 0 or gap > _GAP_S * rate):
                if gap > _LONGEST_GAP_S * rate:
                    raise fault(source, f"its sound pauses for {gap // rate} s", "export it anew")
                chunks.append(np.zeros((min(gap, need - have), chunk.shape[1]), np.float32))
                have += len(chunks[-1])
        chunks.append(chunk)
        have += len(chunk)
        if have >= need:
            break
    else:
        _require_whole(container, stream, Fraction(have, rate), source)
    samples = np.concatenate(chunks) if chunks else np.zeros((0, 1), np.float32)
    return Sound(samples[: _end_sample(container, stream)], rate, length_s(container, stream))


def _end_sample(container: InputContainer, stream: AudioStream) -> int | None:
    """Return where the sound ends by the container's times: AAC fills up its last block."""
    if "mp4" not in container.format.name or not stream.duration or stream.time_base is None:
        return None
    end_s = ((stream.start_time or 0) + stream.duration) * stream.time_base - _start_s(container)
    return max(0, round(end_s * stream.codec_context.sample_rate))


# Sample format -> (value of silence, value of full scale). A trailing "p" (planar) is dropped.
_FULL_SCALE = {
    "u8": (128.0, 128.0),
    "s16": (0.0, 32768.0),
    "s32": (0.0, 2147483648.0),
    "s64": (0.0, 9223372036854775808.0),
    "flt": (0.0, 1.0),
    "dbl": (0.0, 1.0),
}


def _channels(frame: AudioFrame) -> int:
    return frame.layout.nb_channels


def _samples(frame: AudioFrame) -> np.ndarray:
    """Return a decoded block as float32 (S, C)."""
    silence, full = _FULL_SCALE[frame.format.name.removesuffix("p")]
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, _channels(frame))
    return ((values.astype(np.float64) - silence) / full).astype(np.float32)
