"""MP4 files from arrays: H.264 and AAC through PyAV. Knows pixels and samples, no files.

One thread and the bit-exact flags, so that the same arrays give the same pictures and sound.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.stream import VideoStream

# Sampling rates that AAC knows.
_AAC_RATES_HZ = (
    7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000,
)  # fmt: skip
_AAC_BIT_RATE = 160_000
_AAC_BLOCK = 1024
# Nearly lossless at the sizes of this package, and read by every player.
# Without its macroblock tree, which reads memory it did not write, x264 repeats itself exactly.
_X264_OPTIONS = {"crf": "14", "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
# As the container library names them: BT.601 matrix, limited range, BT.709 primaries and curve.
_BT601, _LIMITED_RANGE, _BT709 = 6, 1, 1


def encode_mp4(
    frames: np.ndarray, fps: float, samples: np.ndarray | None = None, sample_rate_hz: int = 0
) -> bytes:
    """Encode H.264 (yuv420p) and, when there are samples, AAC.

    An odd width or height grows by one repeated pixel, since the format stores colour for blocks
    of 2x2 pixels.

    Args:
        frames: uint8 (F, H, W, 3).
        fps: Frames per second.
        samples: float32 (S,) in [-1, 1], or None for a silent file.
        sample_rate_hz: Rate of the samples; one that AAC lacks is resampled to the next above.
    """
    import av
    from av.codec.context import Flags

    buffer = io.BytesIO()
    odd_rows, odd_columns = frames.shape[1] % 2, frames.shape[2] % 2
    even = np.pad(frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        pictures = container.add_stream("libx264", rate=rate, options=dict(_X264_OPTIONS))
        pictures.width, pictures.height = even.shape[2], even.shape[1]
        pictures.pix_fmt = "yuv420p"
        context = pictures.codec_context
        context.colorspace, context.color_range = _BT601, _LIMITED_RANGE
        context.color_primaries, context.color_trc = _BT709, _BT709
        context.flags |= Flags.bitexact
        tracks = [_picture_packets(pictures, even, rate)]
        if samples is not None:
            samples, sample_rate_hz = _at_aac_rate(samples, sample_rate_hz)
            sound = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
            sound.bit_rate = _AAC_BIT_RATE
            sound.codec_context.flags |= Flags.bitexact
            tracks.append(_sound_packets(sound, samples, sample_rate_hz))
        # In the order of time, so that a player never waits for one of the tracks.
        for _, packets in heapq.merge(*tracks, key=lambda timed: timed[0]):
            container.mux(packets)
    return buffer.getvalue()


def _picture_packets(
    stream: VideoStream, frames: np.ndarray, rate: Fraction
) -> Iterator[tuple[Fraction, list[Packet]]]:
    import av

    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        yield index / rate, stream.encode(frame)
    yield len(frames) / rate, stream.encode(None)


def _sound_packets(
    stream: AudioStream, samples: np.ndarray, sample_rate_hz: int
) -> Iterator[tuple[Fraction, list[Packet]]]:
    import av

    for begin in range(0, len(samples), _AAC_BLOCK):
        block = np.ascontiguousarray(samples[None, begin : begin + _AAC_BLOCK])  # (1, S)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = sample_rate_hz
        frame.pts, frame.time_base = begin, Fraction(1, sample_rate_hz)
        yield Fraction(begin, sample_rate_hz), stream.encode(frame)
    yield Fraction(len(samples), sample_rate_hz), stream.encode(None)


def _at_aac_rate(samples: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, int]:
    rate = min((r for r in _AAC_RATES_HZ if r >= sample_rate_hz), default=_AAC_RATES_HZ[-1])
    if rate == sample_rate_hz:
        return samples, rate
    import soxr

    return soxr.resample(samples, sample_rate_hz, rate, quality="HQ"), rate
