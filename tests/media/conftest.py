"""Real media files, built on the spot: clips in any container, sounds in any format."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

RED, BLUE = (220, 30, 30), (40, 60, 210)


def striped(width: int, height: int, left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (H, W, 3): the left half in one colour, the right half in another."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = left, right
    return pixels


def ramp(count: int, width: int = 64, height: int = 64) -> np.ndarray:
    """Return uint8 (F, H, W, 3): grey frames whose brightness tells their index."""
    levels = np.linspace(20, 235, count).round().astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def clicks(times_s: list[float], duration_s: float, rate: int) -> np.ndarray:
    """Return float32 (S,): silence with short decaying bursts."""
    samples = np.zeros(round(duration_s * rate), np.float32)
    burst = (
        0.8 * np.exp(-np.arange(rate // 50) / (rate / 400)) * np.cos(np.arange(rate // 50) * 0.9)
    )
    for time_s in times_s:
        begin = round(time_s * rate)
        part = samples[begin : begin + len(burst)]
        part += burst[: len(part)].astype(np.float32)
    return samples


def onset_s(samples: np.ndarray, rate: int) -> float:
    """Return the first instant at which a sound reaches half its peak."""
    loud = np.abs(samples)
    return float(np.argmax(loud >= loud.max() / 2)) / rate


def write_clip(
    path: Path,
    frames: np.ndarray | None,
    *,
    fps: float = 8,
    times_s: list[float] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    samples: np.ndarray | None = None,
    rate: int = 48000,
    audio_codec: str = "aac",
    audio_from_s: float = 0.0,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    container_format: str | None = None,
) -> Path:
    """Write a container file; `times_s` gives each frame its own instant.

    The ending of `path` chooses the container, where no `container_format` does.
    """
    options = container_options or {}
    with av.open(path, "w", format=container_format, options=options) as container:
        packets: list[av.Packet] = []
        if frames is not None:
            video: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = pixel_format
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
            if times_s is not None:
                video.codec_context.time_base = Fraction(1, 1000)
        if samples is not None:
            sound: Any = container.add_stream(audio_codec, rate=rate, layout="mono")
        if frames is not None:
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = index, 1 / Fraction(fps).limit_denominator(1001)
                if times_s is not None:
                    frame.pts, frame.time_base = round(times_s[index] * 1000), Fraction(1, 1000)
                packets += video.encode(frame)
            packets += video.encode(None)
        if samples is not None:
            block = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            block.sample_rate = rate
            block.pts, block.time_base = round(audio_from_s * rate), Fraction(1, rate)
            packets += _encode_sound(sound, block)
        for packet in packets:
            container.mux(packet)
    return path


def _encode_sound(stream: av.AudioStream, block: av.AudioFrame) -> list[av.Packet]:
    converter = av.AudioResampler(format=stream.format.name, layout="mono", rate=stream.rate)
    packets = []
    for part in [*converter.resample(block), *converter.resample(None)]:
        packets += stream.encode(part)
    return packets + stream.encode(None)


def rotate_in_header(path: Path) -> None:
    """Ask in an MP4 file's track header for a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Drop the powers of the superuser, before whom no permission stands."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Give the builders above to a test."""
    return SimpleNamespace(
        RED=RED,
        BLUE=BLUE,
        clicks=clicks,
        clip=write_clip,
        onset_s=onset_s,
        ramp=ramp,
        rotate_in_header=rotate_in_header,
        striped=striped,
    )
