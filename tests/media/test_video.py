from __future__ import annotations

import io
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from codi.media import (
    Audio,
    MediaError,
    Video,
    decode_filmstrip,
    has_audio,
    load_audio,
    load_middle_frame,
    load_video,
    save_video,
)

RATE_HZ = 16000
# H.264 with 4:2:0 colour: a grey level survives within this.
TOLERANCE = 6


def levels(video: Video) -> np.ndarray:
    """Return each frame's mean brightness (F,)."""
    return video.frames.mean(axis=(1, 2, 3))


CONTAINERS = [
    ("clip.mp4", {"codec": "libx264"}),
    ("clip.mov", {"codec": "libx264"}),
    ("clip.mkv", {"codec": "ffv1", "pixel_format": "bgr0"}),
    ("clip.mkv", {"codec": "libx264"}),
    ("clip.webm", {"codec": "libvpx-vp9"}),
    ("clip.avi", {"codec": "mpeg4"}),
    ("clip.ts", {"codec": "libx264"}),
    ("clip.y4m", {"codec": "wrapped_avframe"}),
    ("clip.mxf", {"codec": "mpeg2video", "fps": 25}),
    ("clip.wtv", {"codec": "mpeg2video", "fps": 25}),
    ("clip.swf", {"codec": "flv"}),
    ("clip.h264", {"codec": "libx264", "fps": 25}),
    ("clip.hevc", {"codec": "libx265", "fps": 25}),
    ("clip.m1v", {"codec": "mpeg1video", "fps": 25}),
    ("clip.m2v", {"codec": "mpeg2video", "fps": 25}),
    ("clip.m4v", {"codec": "mpeg4", "fps": 25, "container_format": "m4v"}),
    ("clip.obu", {"codec": "libsvtav1", "fps": 25}),
]

# Containers that take a few sizes alone, and by how many frames their clock may begin late.
SIZED = [
    ("clip.dv", 720, 576, "dvvideo", 0),
    ("clip.gxf", 720, 576, "mpeg2video", 1),
    ("clip.rm", 176, 144, "rv10", 0),
]


@pytest.mark.parametrize(("name", "options"), CONTAINERS)
def test_every_container_gives_the_same_frames(
    tmp_path: Path, make: Any, name: str, options: dict[str, Any]
) -> None:
    source = make.ramp(16)
    path = make.clip(tmp_path / name, source, **options)
    video, notes = load_video(path, frames=16, fps=options.get("fps", 8), size_px=64)
    assert video.frames.shape == (16, 64, 64, 3)
    assert video.frames.dtype == np.uint8
    assert np.abs(levels(video) - source.mean(axis=(1, 2, 3))).max() < TOLERANCE
    assert notes == []


@pytest.mark.parametrize(("name", "width", "height", "codec", "late"), SIZED)
def test_containers_of_few_sizes_give_the_same_frames(
    tmp_path: Path, make: Any, name: str, width: int, height: int, codec: str, late: int
) -> None:
    source = make.ramp(8, width, height)
    path = make.clip(tmp_path / name, source, fps=25, codec=codec)
    video, notes = load_video(path, frames=8, fps=12.5, size_px=64)
    expected = source.mean(axis=(1, 2, 3))[[max(0, 2 * i - late) for i in range(4)]]
    assert np.abs(levels(video)[:4] - expected).max() < TOLERANCE
    assert re.search(r"25\)? -> 12\.5 fps", notes[0])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_pictures_are_videos(tmp_path: Path, make: Any, suffix: str) -> None:
    source = make.ramp(16)
    first, *rest = [Image.fromarray(pixels) for pixels in source]
    path = tmp_path / f"clip.{suffix}"
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=120, **lossless)
    video, notes = load_video(path, frames=16, fps=25 / 3, size_px=64)
    assert np.abs(levels(video) - source.mean(axis=(1, 2, 3))).max() < 2
    assert notes == []


def test_transparent_animation_is_laid_on_white(tmp_path: Path) -> None:
    layers = [Image.new("RGBA", (32, 32), (0, 0, level, 0)) for level in range(4)]
    path = tmp_path / "ghost.webp"
    layers[0].save(
        path, save_all=True, append_images=layers[1:], duration=100, lossless=True, exact=True
    )
    video, notes = load_video(path, frames=2, fps=5, size_px=32)
    assert (video.frames == 255).all()
    assert "transparency laid on white" in notes[0]
    layers[-1].putalpha(255)  # of which one frame is enough
    layers[0].save(path, save_all=True, append_images=layers[1:], duration=100, lossless=True)
    assert "transparency laid on white" in load_video(path, frames=2, fps=5, size_px=32)[1][0]


def test_note_says_what_was_used_and_cropped(tmp_path: Path, make: Any) -> None:
    path = make.clip(tmp_path / "dog.mp4", make.ramp(100, 192, 108), fps=25)
    video, notes = load_video(path, frames=16, fps=8, size_px=64)
    assert video.frames.shape == (16, 64, 64, 3)
    assert notes == [
        "dog.mp4: used 2.0 s of 4.0 s from the start, 25 -> 8 fps,"
        " centre crop 108x108 of 192x108, resized to 64x64"
    ]


def test_frames_are_taken_by_presentation_time(tmp_path: Path, make: Any) -> None:
    """Frames at 0, 0.5, 0.6, 0.7 and 1.6 s: each grid instant shows the latest before it."""
    source, times_s = make.ramp(5), [0.0, 0.5, 0.6, 0.7, 1.6]
    path = make.clip(tmp_path / "phone.mkv", source, times_s=times_s)
    video, notes = load_video(path, frames=8, fps=4, size_px=64)
    expected = source[[0, 0, 1, 3, 3, 3, 3, 4]].mean(axis=(1, 2, 3))
    assert np.abs(levels(video) - expected).max() < TOLERANCE
    assert "variable frame rate" in notes[0]


@pytest.mark.parametrize("fps", [24000 / 1001, 30, 15, 5])
def test_any_rate_shows_the_right_instant(tmp_path: Path, make: Any, fps: float) -> None:
    source = make.ramp(round(2.5 * fps))
    path = make.clip(tmp_path / "clip.mkv", source, fps=fps)
    video, _ = load_video(path, frames=16, fps=8, size_px=64)
    indices = np.floor(np.arange(16) / 8 * fps + 0.02).astype(int)
    assert np.abs(levels(video) - source[indices].mean(axis=(1, 2, 3))).max() < TOLERANCE


def test_short_video_holds_its_last_frame_and_says_so(tmp_path: Path, make: Any) -> None:
    source = make.ramp(8)
    path = make.clip(tmp_path / "short.mp4", source)
    video, notes = load_video(path, frames=16, fps=8, size_px=64)
    assert (video.frames[8:] == video.frames[7]).all()
    assert notes == ["short.mp4: only 1.0 s long, so that its last frame is held up to 2.0 s"]


def test_portrait_video_is_turned_upright(tmp_path: Path, make: Any) -> None:
    stored = np.repeat(make.striped(96, 64, make.RED, make.BLUE)[None], 4, axis=0)
    path = make.clip(tmp_path / "portrait.mp4", stored)
    make.rotate_in_header(path)
    video, notes = load_video(path, frames=4, fps=8, size_px=64)
    top, bottom = video.frames[0, 5, 32].astype(int), video.frames[0, -5, 32].astype(int)
    assert top[0] > 150 > top[2]  # a clockwise quarter turn brings the left, red, to the top
    assert bottom[2] > 150 > bottom[0]
    assert notes == [
        "portrait.mp4: turned upright as its rotation asks, centre crop 64x64 of 64x96"
    ]


def test_pixels_that_are_not_square(tmp_path: Path, make: Any) -> None:
    """Pixels twice as wide as high: the square on the screen is 32 stored pixels wide."""
    stored = np.full((4, 64, 64, 3), 40, np.uint8)
    stored[:, :, 16:48] = 200
    path = make.clip(tmp_path / "old.mkv", stored, aspect=Fraction(2))
    video, notes = load_video(path, frames=4, fps=8, size_px=64)
    assert abs(video.frames[:, :, 6:-6].mean() - 200) < TOLERANCE
    assert "centre crop 32x64 of 64x64" in notes[0]


def test_colours_survive(tmp_path: Path, make: Any) -> None:
    frames = np.repeat(make.striped(64, 64, make.RED, make.BLUE)[None], 4, axis=0)
    save_video(tmp_path / "colours.mp4", Video(frames, 8.0))
    video, _ = load_video(tmp_path / "colours.mp4", frames=4, fps=8, size_px=64)
    for columns, colour in ((slice(4, 28), make.RED), (slice(36, 60), make.BLUE)):
        assert np.abs(video.frames[:, :, columns] - np.array(colour, float)).max() < 8


def test_same_file_gives_the_same_arrays(tmp_path: Path, make: Any) -> None:
    path = make.clip(tmp_path / "clip.mp4", make.ramp(30, 200, 100), fps=30)
    first, second = (load_video(path, frames=8, fps=8, size_px=64)[0] for _ in range(2))
    assert (first.frames == second.frames).all()


def test_flash_and_click_stay_together_in_an_mp4(tmp_path: Path, make: Any) -> None:
    frames = np.full((16, 64, 64, 3), 20, np.uint8)
    frames[9:] = 220
    sound = Audio(make.clicks([9 / 8], 2.0, RATE_HZ), RATE_HZ)
    path = tmp_path / "clap.mp4"
    save_video(path, Video(frames, 8.0, sound))

    video, video_notes = load_video(path, frames=16, fps=8, size_px=64)
    heard, audio_notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert video_notes == ["clap.mp4: without its sound (to use it, give the file as audio too)"]
    assert audio_notes == []
    assert int(np.argmax(levels(video) > 100)) == 9
    assert heard.samples.shape == sound.samples.shape
    assert abs(make.onset_s(heard.samples, RATE_HZ) - 9 / 8) < 0.010
    correlation = np.correlate(heard.samples, sound.samples, "same")
    assert int(np.argmax(correlation)) == len(correlation) // 2  # to the sample


@pytest.mark.parametrize("rate_hz", [8000, 11000, 22050, 44100, 48000, 96000])
def test_mp4_takes_any_sampling_rate(tmp_path: Path, make: Any, rate_hz: int) -> None:
    path = tmp_path / "clip.mp4"
    sound = Audio(make.clicks([0.5], 1.0, rate_hz), rate_hz)
    save_video(path, Video(make.ramp(8), 8.0, sound))
    heard, _ = load_audio(path, sample_rate_hz=rate_hz, duration_s=1.0)
    assert abs(make.onset_s(heard.samples, rate_hz) - 0.5) < 0.010


@pytest.mark.parametrize(
    ("name", "codecs", "slack_s"),
    [
        ("clip.mxf", {"codec": "mpeg2video", "audio_codec": "pcm_s16le"}, 0.010),
        ("clip.mp4", {"audio_codec": "aac"}, 0.010),
        ("clip.mkv", {"audio_codec": "flac"}, 0.010),
        ("clip.mkv", {"audio_codec": "aac"}, 0.010),
        ("clip.webm", {"codec": "libvpx-vp9", "audio_codec": "libopus"}, 0.010),
        ("clip.mov", {"audio_codec": "pcm_s16le"}, 0.010),
        # AVI says nothing of its encoder's delay; a transport stream's clock begins with it, for
        # the picture too.
        ("clip.avi", {"codec": "mpeg4", "audio_codec": "libmp3lame"}, 0.060),
        ("clip.ts", {"audio_codec": "aac"}, 0.025),
    ],
)
def test_sound_and_picture_share_one_clock(
    tmp_path: Path, make: Any, name: str, codecs: dict[str, str], slack_s: float
) -> None:
    frames = np.full((50, 64, 64, 3), 20, np.uint8)
    frames[25:] = 220
    path = make.clip(
        tmp_path / name, frames, fps=25, samples=make.clicks([1.0], 2.0, 48000), **codecs
    )
    video, notes = load_video(path, frames=50, fps=25, size_px=64)
    assert "without its sound (to use it, give the file as audio too)" in notes[0]
    heard, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert abs(np.argmax(levels(video) > 100) - 25) <= 1
    assert abs(make.onset_s(heard.samples, RATE_HZ) - 1.0) < slack_s


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path, make: Any) -> None:
    path = make.clip(
        tmp_path / "late.mkv",
        make.ramp(16),
        samples=make.clicks([0.25], 1.0, 48000),
        audio_codec="flac",
        audio_from_s=0.5,
    )
    heard, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert abs(make.onset_s(heard.samples, RATE_HZ) - 0.75) < 0.010


def write_blocks(path: Path, starts_s: list[float]) -> None:
    """Write a sound file of tenths of a second at full scale, at these instants."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for start_s in starts_s:
            samples = np.full((1, RATE_HZ // 10), 32767, np.int16)
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate = RATE_HZ
            block.pts, block.time_base = round(start_s * RATE_HZ), Fraction(1, RATE_HZ)
            container.mux(stream.encode(block))


def test_pauses_in_a_sound_track_stay(tmp_path: Path) -> None:
    write_blocks(tmp_path / "gap.mkv", [0.0, 0.1, 0.7])
    heard, _ = load_audio(tmp_path / "gap.mkv", sample_rate_hz=RATE_HZ, duration_s=1.0)
    places = [round(time_s * RATE_HZ) for time_s in (0.15, 0.3, 0.65, 0.75)]
    assert (heard.samples[places] > 0.9).tolist() == [True, False, False, True]
    write_blocks(tmp_path / "week.mkv", [0.0, 7 * 24 * 3600.0])
    with pytest.raises(MediaError, match=r"week\.mkv: its sound pauses for 604799 s; export it"):
        load_audio(tmp_path / "week.mkv", sample_rate_hz=RATE_HZ, duration_s=1.0)


def test_transparent_video_is_laid_on_white(tmp_path: Path) -> None:
    with av.open(tmp_path / "ghost.mkv", "w") as container:
        stream: Any = container.add_stream("ffv1", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "bgra"
        for _ in range(3):
            layer = np.zeros((64, 64, 4), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(layer, format="bgra")))
        container.mux(stream.encode(None))
    video, _ = load_video(tmp_path / "ghost.mkv", frames=2, fps=8, size_px=64)
    assert (video.frames == 255).all()


def test_absurd_frames_are_refused(tmp_path: Path, make: Any) -> None:
    path = make.clip(
        tmp_path / "huge.mkv", make.ramp(3, 300, 300), codec="ffv1", pixel_format="bgr0"
    )
    data = path.read_bytes()
    width, height = b"\xb0\x82\x01\x2c", b"\xba\x82\x01\x2c"  # PixelWidth, PixelHeight: 300
    assert data.count(width) == data.count(height) == 1
    data = data.replace(width, width[:2] + b"\x3a\x98").replace(height, height[:2] + b"\x3a\x98")
    path.write_bytes(data)
    with pytest.raises(MediaError, match="has frames of 15000x15000, the limit is 64 million pix"):
        load_video(path, frames=3, fps=8, size_px=64)


def test_mp4_bytes_repeat(tmp_path: Path, make: Any) -> None:
    video = Video(make.ramp(8), 8.0, Audio(make.clicks([0.5], 1.0, RATE_HZ), RATE_HZ))
    for name in ("a.mp4", "b.mp4"):
        video.save(tmp_path / name)
    a, b = (load_video(tmp_path / n, frames=8, fps=8, size_px=64)[0] for n in ("a.mp4", "b.mp4"))
    assert (a.frames == b.frames).all()


def test_odd_sizes_are_written(tmp_path: Path) -> None:
    save_video(tmp_path / "odd.mp4", Video(np.full((3, 33, 47, 3), 90, np.uint8), 29.97))
    with av.open(tmp_path / "odd.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (48, 34, 3)
        assert stream.pix_fmt == "yuv420p"


def test_has_audio(tmp_path: Path, make: Any) -> None:
    silent = make.clip(tmp_path / "silent.mp4", make.ramp(4))
    loud = make.clip(tmp_path / "loud.mp4", make.ramp(4), samples=make.clicks([0.1], 0.5, 48000))
    assert not has_audio(silent)
    assert has_audio(loud)
    with pytest.raises(MediaError, match=r"silent\.mp4: is a video without a sound track; give a"):
        load_audio(silent, sample_rate_hz=RATE_HZ, duration_s=1)


def with_cover(mp3: bytes) -> bytes:
    """Put a picture in front of an MP3 file, as an ID3 tag holds it."""
    cover = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(cover, "PNG")
    picture = b"\0image/png\0\x03\0" + cover.getvalue()
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame + mp3


def test_cover_of_a_song_is_no_video(tmp_path: Path, make: Any) -> None:
    samples = make.clicks([0.1], 0.5, 48000)
    make.clip(tmp_path / "song.m4a", None, samples=samples)
    path = tmp_path / "song.mp3"
    soundfile.write(path, samples, 48000)
    path.write_bytes(with_cover(path.read_bytes()))
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    for name in ("song.mp3", "song.m4a"):
        with pytest.raises(MediaError, match="holds no moving picture, only sound; use --audio"):
            load_video(tmp_path / name, frames=4, fps=8, size_px=64)
        heard, _ = load_audio(tmp_path / name, sample_rate_hz=RATE_HZ, duration_s=0.5)
        assert abs(make.onset_s(heard.samples, RATE_HZ) - 0.1) < 0.010


def test_single_pictures_are_sent_to_the_image_option(tmp_path: Path, make: Any) -> None:
    for suffix in ("gif", "png", "jpg", "webp"):
        path = tmp_path / f"still.{suffix}"
        Image.new("RGB", (64, 64), "red").save(path)
        with pytest.raises(MediaError, match="is a single picture; use --image"):
            load_video(path, frames=4, fps=8, size_px=64)
    path = make.clip(tmp_path / "still.mp4", make.ramp(1))
    with pytest.raises(MediaError, match=r"single picture, not a moving one; .* use --image"):
        load_video(path, frames=4, fps=8, size_px=64)


def test_video_knows_its_length_and_shows_itself(make: Any) -> None:
    video = Video(make.ramp(16), 8.0, Audio(np.zeros(32000, np.float32), RATE_HZ))
    assert video.duration_s == 2.0
    audio = "Audio(32000 samples at 16000 Hz, 2.0 s)"
    assert repr(video) == f"Video(16 frames of 64x64 at 8 fps, 2.0 s, with {audio})"
    assert repr(Video(make.ramp(3, 48, 32), 12.5)).endswith("48x32 at 12.5 fps, 0.24 s, silent)")
    assert 'src="data:video/mp4;base64,' in video._repr_html_()


@pytest.mark.parametrize(
    ("frames", "fps", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), 8.0, "float32"),
        (np.zeros((8, 8, 3), np.uint8), 8.0, r"\(8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), 8.0, "none of them 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0, "fps is 0.0"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "fps is nan"),
        ([[1]], 8.0, "list"),
    ],
)
def test_wrong_arrays_are_named(frames: Any, fps: float, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        Video(frames, fps)


def test_sound_out_of_range_is_not_written(tmp_path: Path, make: Any) -> None:
    for bad, words in ((np.nan, "not numbers"), (1.5, r"peak is 1\.5, above 1")):
        samples = np.zeros(1600, np.float32)
        samples[7] = bad
        with pytest.raises(MediaError, match=words):
            save_video(tmp_path / "bad.mp4", Video(make.ramp(4), 8.0, Audio(samples, RATE_HZ)))
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(tmp_path: Path, make: Any) -> None:
    with pytest.raises(MediaError, match=r"clip\.avi: .*'\.avi'; end the name in \.mp4"):
        save_video(tmp_path / "clip.avi", Video(make.ramp(4), 8.0))


def test_filmstrip_is_cut_into_its_frames(tmp_path: Path, make: Any) -> None:
    source = make.ramp(6, 32, 32)
    Image.fromarray(source.reshape(-1, 32, 3)).save(tmp_path / "strip.webp", lossless=True)
    data = (tmp_path / "strip.webp").read_bytes()
    assert (decode_filmstrip(data, 6) == source).all()
    with pytest.raises(MediaError, match="is 32x192, but 5 square frames are 32x160"):
        decode_filmstrip(data, 5, name="000.video.webp")


def test_a_recording_without_a_length_is_cut_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "live.mkv"
    with av.open(str(path), "w", format="matroska", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in range(120):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    notes = load_video(path, size_px=64, frames=16, fps=8.0)[1]
    assert notes == [
        "live.mkv: used the first 2.0 s, as the file does not tell its length, 12 -> 8 fps"
    ]


@pytest.mark.parametrize("name", ["long.mp4", "long.gif", "long.mkv"])
def test_the_middle_frame_is_that_of_the_whole_file(name: str, make: Any, tmp_path: Path) -> None:
    """Ten seconds of ten levels, a second each: the sixth begins in the middle."""
    frames = np.repeat(make.ramp(10), 8, axis=0)
    if name.endswith(".gif"):
        pictures = [Image.fromarray(frame) for frame in frames[::8]]
        pictures[0].save(
            tmp_path / name, save_all=True, append_images=pictures[1:], duration=1000, loop=0
        )
    else:
        make.clip(tmp_path / name, frames)
    found = np.asarray(load_middle_frame(tmp_path / name, size_px=32))
    assert found.shape == (32, 32, 3)
    assert found.mean() == pytest.approx(frames[40].mean(), abs=6)


def test_a_file_without_frames_has_no_middle(make: Any, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4: no such file"):
        load_middle_frame(tmp_path / "none.mp4", size_px=32)
    sound = make.clip(tmp_path / "sound.mp4", None, samples=make.clicks([0.1], 1.0, 48000))
    with pytest.raises(MediaError, match=r"sound\.mp4: holds no moving picture, only sound"):
        load_middle_frame(sound, size_px=32)
    whole = make.clip(tmp_path / "cut.mp4", make.ramp(40)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4: "):
        load_middle_frame(tmp_path / "cut.mp4", size_px=32)
