"""Toy digits: printed ones that move, and chords that stand for spoken ones, alone or in shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw, ImageFont

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE_HZ = 16_000
FRAMES = 4


def drawn(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Return a white digit somewhere on black: uint8 (64, 64, 3)."""
    picture = Image.new("L", (64, 64))
    at = (int(rng.integers(6, 22)), int(rng.integers(6, 22)))
    ImageDraw.Draw(picture).text(at, str(digit), fill=255, font=ImageFont.load_default(40))
    return np.repeat(np.asarray(picture)[..., None], 3, axis=2)


def spoken(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Return two tones, another pair for each digit, after a pause: float32 (16000,)."""
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    low, high = 200.0 + 120.0 * (digit % 5), 1500.0 + 1500.0 * (digit // 5)
    tone = np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t)
    samples = 0.01 * rng.standard_normal(RATE_HZ)
    start = int(rng.integers(RATE_HZ // 3))
    samples[start : start + len(t)] += rng.uniform(0.2, 0.4) * tone
    return samples.astype(np.float32)


def write_shard(path: Path, count: int, seed: int) -> None:
    """Write a shard of `count` items with a picture, a film strip, a sound and captions each."""
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            digit = i % 10
            frames = [drawn(digit, rng) for _ in range(FRAMES)]
            for name, data in _members(digit, frames, spoken(digit, rng)).items():
                info = tarfile.TarInfo(f"{i:04d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _members(digit: int, frames: list[np.ndarray], samples: np.ndarray) -> dict[str, bytes]:
    name = NAMES[digit]
    record = {
        "text": f"the digit {name}",
        "captions": [
            f"the digit {name}",
            f"a voice says {name}",
            f"a white handwritten {name} on black",
        ],
        "digit": digit,
        "video": {"n": FRAMES, "fps": 8},
    }
    sound = io.BytesIO()
    soundfile.write(sound, samples, RATE_HZ, format="FLAC")
    return {
        "json": json.dumps(record).encode(),
        "image.webp": _webp(frames[0]),
        "video.webp": _webp(np.concatenate(frames)),
        "audio.flac": sound.getvalue(),
    }


def _webp(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "WEBP", lossless=True)
    return data.getvalue()
