"""Tiny shards of exactly the layouts of the real data: sizes, members and records of every part."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from codi.evaluation.parts import PARTS

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE_HZ = 16_000
_RNG = np.random.default_rng(0)


def _webp(frames: int, size_px: int) -> bytes:
    data = io.BytesIO()
    pixels = _RNG.integers(0, 256, (frames * size_px, size_px, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "WEBP")
    return data.getvalue()


def _flac(seconds: float) -> bytes:
    data = io.BytesIO()
    samples = 0.2 * _RNG.standard_normal(int(seconds * RATE_HZ))
    soundfile.write(data, samples.clip(-1, 1), RATE_HZ, format="FLAC")
    return data.getvalue()


def _digits(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    name = NAMES[i % 10]
    said = [
        f"the digit {name}",
        f"a voice says {name}",
        f"a red handwritten {name} moving on black",
    ]
    record = {"captions": said, "digit": i % 10, "video": {"n": 16, "fps": 8, "size": 64}}
    return record, {"image.webp": _webp(1, 64), "video.webp": _webp(16, 64), "audio.flac": _flac(1)}


def _esc(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    concept, words = [("dog", "a dog barking"), ("rain", "rain falling")][i % 2]
    record = {"captions": [f"the sound of {words}", words, f"take {i}"], "concept": concept}
    return record, {"audio.flac": _flac(4)}


def _noto(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    record = {
        "captions": [f"an animated emoji of face {i}", f"face {i}"],
        "video": {"n": 16, "fps": 10.06, "size": 96},
    }
    return record, {"image.webp": _webp(1, 96), "video.webp": _webp(16, 96)}


def _notostill(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"captions": [f"an emoji of cat {i}", f"cat {i}"]}, {"image.webp": _webp(1, 96)}


def _sprites(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    facts = {fact.name: dict(fact.values) for fact in PARTS["sprites"].facts}
    short = (
        f"a character with {facts['hair'][str(i % 10)]} and {facts['top'][str(i % 7)]} "
        f"walking {facts['direction'][str(i % 4)]}"
    )
    record = {
        "captions": [f"a pixel-art character with light skin number {i}", short],
        "attributes": {
            "body": i % 7,
            "bottomwear": i % 7,
            "topwear": i % 7,
            "hair": i % 10,
            "shoes": i % 3,
        },
        "action": "walk",
        "direction": i % 4,
        "video": {"n": 8, "fps": 10, "size": 64},
        "image_frame": 0,
    }
    return record, {"video.webp": _webp(8, 64)}


def _handsign(i: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    name = NAMES[i % 10]
    said = [f"a hand signing the number {name}", f"the digit {name} in sign language"]
    return {"captions": said, "digit": i % 10}, {"image.webp": _webp(1, 96)}


_ITEMS = {
    "digits": _digits,
    "esc": _esc,
    "noto": _noto,
    "notostill": _notostill,
    "sprites": _sprites,
    "handsign": _handsign,
}


def write_real_shard(folder: Path, part: str, split: str, count: int) -> Path:
    """Write `<part>-<split>.tar` of noise with true records and captions."""
    path = folder / f"{part}-{split}.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            record, members = _ITEMS[part](i)
            record = {"key": f"{part}/{i:04d}", "text": record["captions"][0], **record}
            for ending, data in {"json": json.dumps(record).encode(), **members}.items():
                info = tarfile.TarInfo(f"{i:04d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path
