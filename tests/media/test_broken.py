"""Files that are damaged in every way we could think of: one clear line, never another error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from codi.media import (
    MediaError,
    decode_audio,
    decode_image,
    load_audio,
    load_image,
    load_text,
    load_video,
)

Load = Callable[[Path], tuple[Any, list[str]]]
LOADERS: dict[str, Load] = {
    "image": lambda path: load_image(path, size_px=64),
    "video": lambda path: load_video(path, frames=16, fps=8, size_px=64),
    "audio": lambda path: load_audio(path, sample_rate_hz=16000, duration_s=2.0),
    "text": load_text,
}


def noise_picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def noise_frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)


def save_animation(path: Path, make: Any) -> None:
    first, *rest = [Image.fromarray(pixels) for pixels in noise_frames()]
    first.save(path, save_all=True, append_images=rest, duration=125)


def save_clip(path: Path, make: Any, codec: str = "libx264", audio_codec: str = "aac") -> None:
    samples = make.clicks([0.5, 1.5], 2.0, 48000)
    make.clip(path, noise_frames(), codec=codec, samples=samples, audio_codec=audio_codec)


def save_fast_start(path: Path, make: Any) -> None:
    """Write an MP4 file whose index stands before its data, as web servers like it."""
    samples = make.clicks([0.5, 1.5], 2.0, 48000)
    options = {"movflags": "+faststart"}
    make.clip(path, noise_frames(), samples=samples, container_options=options)


def save_tone(path: Path, make: Any) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32)
    soundfile.write(path, noise, 16000)


# Name -> (how it is built, which loader takes it, whether every cut in its middle is noticed).
# MP3, OGG, MPEG-TS and such are made to be cut: what is left is a shorter, whole file.
GOOD: dict[str, tuple[Callable[[Path, Any], None], str, bool]] = {
    "a.png": (lambda path, make: noise_picture().save(path), "image", True),
    "a.jpg": (lambda path, make: noise_picture().save(path), "image", True),
    "a.webp": (lambda path, make: noise_picture().save(path), "image", True),
    "a.bmp": (lambda path, make: noise_picture().save(path), "image", True),
    "a.tiff": (lambda path, make: noise_picture().save(path), "image", True),
    "still.gif": (lambda path, make: noise_picture().save(path), "image", True),
    "b.gif": (save_animation, "video", True),
    "b.webp": (save_animation, "video", True),
    "b.png": (save_animation, "video", True),
    "c.mp4": (save_clip, "video", True),
    "fast.mp4": (save_fast_start, "video", True),
    "c.mov": (save_clip, "video", True),
    "c.mkv": (save_clip, "video", True),
    "c.avi": (lambda path, make: save_clip(path, make, "mpeg4", "libmp3lame"), "video", True),
    "c.webm": (lambda path, make: save_clip(path, make, "libvpx-vp9", "libopus"), "video", True),
    "d.mp4": (save_clip, "audio", True),
    "fastd.mp4": (save_fast_start, "audio", True),
    "d.mkv": (save_clip, "audio", True),
    "e.wav": (save_tone, "audio", True),
    "e.flac": (save_tone, "audio", True),
    "e.mp3": (save_tone, "audio", False),
    "e.ogg": (save_tone, "audio", False),
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, make: Any) -> dict[str, bytes]:
    """Build every good file once."""
    folder = tmp_path_factory.mktemp("good")
    for name, (build, _, _) in GOOD.items():
        build(folder / name, make)
    return {name: (folder / name).read_bytes() for name in GOOD}


@pytest.fixture(params=GOOD)
def good(
    request: pytest.FixtureRequest, tmp_path: Path, built: dict[str, bytes]
) -> tuple[Path, Load, bool]:
    _, kind, noticed = GOOD[request.param]
    path = tmp_path / request.param
    path.write_bytes(built[request.param])
    return path, LOADERS[kind], noticed


def complaint(load: Load, path: Path) -> str:
    """Return the error line of a load, "" when the file went in."""
    try:
        load(path)
    except MediaError as error:
        line = str(error)
        assert line.startswith(str(path))
        assert line.count("\n") == 0
        assert "; " in line  # the mend
        return line
    return ""


def test_whole_files_go_in(good: tuple[Path, Load, bool]) -> None:
    path, load, _ = good
    assert complaint(load, path) == ""


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.85])
def test_truncated_files(good: tuple[Path, Load, bool], share: float) -> None:
    path, load, noticed = good
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    line = complaint(load, path)
    assert line or not noticed


@pytest.mark.parametrize("length", [1, 2, 4, 8, 12, 16, 31, 64, 100])
def test_only_the_first_bytes(good: tuple[Path, Load, bool], length: int) -> None:
    path, load, _ = good
    path.write_bytes(path.read_bytes()[:length])
    assert complaint(load, path)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_never_crash(good: tuple[Path, Load, bool], seed: int) -> None:
    path, load, _ = good
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    # Headers matter most, so half of the damage goes there.
    for end in (min(200, len(data)), len(data)):
        places = rng.integers(0, end, 8)
        data[places] = rng.integers(0, 256, 8)
    path.write_bytes(data.tobytes())
    complaint(load, path)


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "mp4", "webm", "gif", "wav", "mp3", "ogg", "raw"])
def test_what_is_no_media(tmp_path: Path, kind: str, suffix: str) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / f"junk.{suffix}"
    for data in (
        bytes(5000),
        b"\xff" * 5000,
        b"\x47" * 5000,
        rng.bytes(50),
        rng.bytes(20_000),
        b"A red ball bounces twice.\n" * 100,
    ):
        path.write_bytes(data)
        assert complaint(LOADERS[kind], path)


def test_a_kind_in_the_place_of_another(tmp_path: Path, make: Any) -> None:
    """Each file under each loader: the line names what the file is and the option that takes it."""
    files = {"image": "a.png", "video": "c.mp4", "audio": "e.wav", "text": "words.txt"}
    for kind, name in files.items():
        if kind == "text":
            (tmp_path / name).write_text("A red ball bounces.", encoding="utf-8")
        else:
            GOOD[name][0](tmp_path / name, make)
    for kind, name in files.items():
        for wanted, load in LOADERS.items():
            line = complaint(load, tmp_path / name)
            takes = wanted == kind or (wanted, kind) == ("audio", "video")
            assert (f"use --{kind}" in line) != takes, line


def test_a_video_that_begins_like_a_text_is_named(tmp_path: Path, make: Any) -> None:
    path = make.clip(tmp_path / "raw.y4m", noise_frames(), codec="wrapped_avframe")
    for kind in ("image", "text"):
        line = complaint(LOADERS[kind], path)
        assert "is a YUV4MPEG2 video" in line
        assert line.endswith("; use --video")
    assert "is a video without a sound track" in complaint(LOADERS["audio"], path)


def test_codecs_that_nobody_knows(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "new.mkv"
    save_clip(path, make)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    assert "its picture is encoded in a way that no decoder" in complaint(LOADERS["video"], path)
    path.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    assert "its sound is encoded in a way that no decoder" in complaint(LOADERS["audio"], path)
    assert complaint(LOADERS["video"], path) == ""


def test_members_in_memory(good: tuple[Path, Load, bool]) -> None:
    data, lines = good[0].read_bytes(), []
    for decode in (decode_image, decode_audio):
        for part in (data, data[: len(data) // 2], data[:20]):
            try:
                decode(part, name="0001.member")
            except MediaError as error:
                lines.append(str(error))
    assert all(line.startswith("0001.member: ") for line in lines)
