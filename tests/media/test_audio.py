from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from codi.media import (
    Audio,
    MediaError,
    decode_audio,
    fit_audio,
    has_audio,
    load_audio,
    save_audio,
)

RATE_HZ = 16000


def tone(rate: int, duration_s: float = 2.0, frequency_hz: float = 440.0) -> np.ndarray:
    """Return float32 (S,): a sine at half of full scale."""
    time_s = np.arange(round(duration_s * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def error_of(heard: Audio, frequency_hz: float = 440.0) -> float:
    """Return the largest deviation from the ideal tone, away from both ends."""
    ideal = tone(heard.sample_rate_hz, heard.duration_s, frequency_hz)
    margin = heard.sample_rate_hz // 20
    return float(np.abs(heard.samples - ideal)[margin:-margin].max())


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_rate_gives_the_same_sound(tmp_path: Path, rate: int, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate)
    heard, notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert heard.samples.dtype == np.float32
    assert heard.samples.shape == (2 * RATE_HZ,)
    assert error_of(heard) < 1e-3
    assert notes == ([] if rate == RATE_HZ else [f"tone.{suffix}: {rate} -> 16000 Hz"])


@pytest.mark.parametrize(("suffix", "codec"), [("wv", "wavpack"), ("tta", "tta")])
def test_lossless_formats_of_pyav_keep_the_sound(
    tmp_path: Path, make: Any, suffix: str, codec: str
) -> None:
    path = tmp_path / f"tone.{suffix}"
    make.clip(path, None, samples=tone(RATE_HZ), rate=RATE_HZ, audio_codec=codec)
    heard, notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert error_of(heard) < 0.01  # its encoder takes 8 bits
    assert notes == []


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "m4a", "aac", "opus", "mka"])
def test_lossy_formats_keep_sound_and_time(tmp_path: Path, make: Any, suffix: str) -> None:
    path = tmp_path / f"click.{suffix}"
    samples = make.clicks([0.7], 2.0, 44100 if suffix != "opus" else 48000)
    rate = 44100 if suffix != "opus" else 48000
    if suffix in ("mp3", "ogg"):
        soundfile.write(path, np.stack([samples, samples], axis=1), rate)
    else:
        codec = "libopus" if suffix == "opus" else "aac"
        make.clip(path, None, samples=samples, rate=rate, audio_codec=codec)
    heard, notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert heard.samples.shape == (2 * RATE_HZ,)
    # Raw AAC names no delay of its encoder: 1024 samples.
    assert abs(make.onset_s(heard.samples, RATE_HZ) - 0.7) < (0.025 if suffix == "aac" else 0.010)
    assert f"{rate} -> 16000 Hz" in notes[0]
    assert ("2 channels mixed to mono" in notes[0]) == (suffix in ("mp3", "ogg"))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_type(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(RATE_HZ), RATE_HZ, subtype=subtype)
    heard, notes = load_audio(tmp_path / "tone.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert error_of(heard) < (0.01 if subtype == "PCM_U8" else 1e-4)
    assert notes == []


def test_long_sound_is_cut_and_says_so(tmp_path: Path) -> None:
    stereo = np.stack([tone(44100, 31.4), -tone(44100, 31.4) / 2], axis=1)
    soundfile.write(tmp_path / "dog.flac", stereo, 44100)
    heard, notes = load_audio(tmp_path / "dog.flac", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert heard.duration_s == 2.0
    assert np.abs(heard.samples[1000:] - tone(RATE_HZ)[1000:] / 4).max() < 1e-3
    assert notes == [
        "dog.flac: 2 channels mixed to mono, used 2.0 s of 31.4 s from the start, 44100 -> 16000 Hz"
    ]


def test_a_recording_without_a_length_is_cut_and_says_so(tmp_path: Path) -> None:
    """As browsers write them: the header was written before the end was known."""
    path = tmp_path / "live.mkv"
    with av.open(str(path), "w", format="matroska", options={"live": "1"}) as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        samples = (20_000 * tone(48_000, 10.0)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode()])
    notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)[1]
    wanted = (
        "live.mkv: used the first 2.0 s, as the file does not tell its length, 48000 -> 16000 Hz"
    )
    assert notes == [wanted]


def test_short_sound_is_followed_by_silence_and_says_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "blip.wav", tone(8000, 0.5), 8000)
    heard, notes = load_audio(tmp_path / "blip.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert heard.samples.shape == (32000,)
    assert not heard.samples[8000:].any()
    assert heard.samples[:8000].any()
    assert notes == [
        "blip.wav: 8000 -> 16000 Hz, only 0.5 s long, so that silence fills it up to 2.0 s"
    ]


def test_one_sample_is_a_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", np.array([0.5]), 44100)
    heard, _ = load_audio(tmp_path / "one.wav", sample_rate_hz=RATE_HZ, duration_s=0.5)
    assert heard.samples.shape == (8000,)


def test_silence_is_taken_and_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hush.wav", np.zeros(16000), RATE_HZ)
    _, notes = load_audio(tmp_path / "hush.wav", sample_rate_hz=RATE_HZ, duration_s=1.0)
    assert notes == ["hush.wav: nothing but silence in it"]


def test_loud_float_sound_is_turned_down_not_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", tone(RATE_HZ) * 4, RATE_HZ, subtype="FLOAT")
    heard, notes = load_audio(tmp_path / "loud.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert np.abs(heard.samples - tone(RATE_HZ) * 2).max() < 1e-3
    assert notes == ["loud.wav: turned down by 6.0 dB, since its peak was 2"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone(RATE_HZ)
    samples[100:103] = bad
    soundfile.write(tmp_path / "bad.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(MediaError, match=r"bad\.wav: 3 of 32000 samples are not numbers"):
        load_audio(tmp_path / "bad.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_header_without_samples(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / f"none.{suffix}", np.zeros(0), RATE_HZ)
    with pytest.raises(MediaError, match=rf"none\.{suffix}: holds no sound \(0 samples\)"):
        load_audio(tmp_path / f"none.{suffix}", sample_rate_hz=RATE_HZ, duration_s=2.0)


def test_truncated_wav_names_both_lengths(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "cut.wav", tone(RATE_HZ), RATE_HZ)
    data = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="is cut off: its header promises 64000 bytes of sound"):
        load_audio(tmp_path / "cut.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    # What is needed is there: then the missing rest does not matter.
    heard, _ = load_audio(tmp_path / "cut.wav", sample_rate_hz=RATE_HZ, duration_s=0.5)
    assert error_of(heard) < 1e-3


@pytest.mark.parametrize("begin", [b"", b"ID3\x03\0\0\0\0\x0f\x50" + bytes(2000)])
def test_a_damaged_mp3_is_read_without_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], begin: bytes
) -> None:
    """Libraries would print lines of their own; what they read is the same."""
    path = tmp_path / "tone.mp3"
    soundfile.write(path, tone(RATE_HZ), RATE_HZ)
    data = path.read_bytes()
    heard, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=0.5)
    for other in (data[: len(data) // 2], data + bytes(len(data) // 10)):
        path.write_bytes(begin + other)
        assert has_audio(path)
        again, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=0.5)
        assert (again.samples == heard.samples).all()
    path.write_bytes(begin + data[: len(data) // 2])
    with pytest.raises(
        MediaError, match=r"tone\.mp3: is cut off: its header promises [0-9]+ bytes"
    ):
        load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    for length in (11, 20, 40, 60):
        path.write_bytes(begin + data[:length])
        with pytest.raises(MediaError, match=r"tone\.mp3: "):
            load_audio(path, sample_rate_hz=RATE_HZ, duration_s=0.5)
    path.write_bytes(begin + data[: len(data) // 3] + b"\0\xff" * 200 + data[len(data) // 3 :])
    damaged, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert np.abs(damaged.samples[: int(1.8 * RATE_HZ)]).reshape(18, -1).max(1).min() > 0.05
    path.write_bytes(begin + data + b"APETAG" * 50)
    again, _ = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert error_of(again) < 0.1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("damage", [bytes, lambda n: np.random.default_rng(0).bytes(n)])
def test_an_mp3_whose_rest_is_damaged_is_refused(
    tmp_path: Path, share: float, damage: Callable[[int], bytes]
) -> None:
    path = tmp_path / "tone.mp3"
    soundfile.write(path, tone(RATE_HZ), RATE_HZ)
    data = path.read_bytes()
    left = int(share * len(data))
    path.write_bytes(data[:left] + damage(len(data) - left))
    with pytest.raises(MediaError, match=r"tone\.mp3: .*(cut off|damaged)"):
        load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
    with pytest.raises(MediaError, match=r"tone\.mp3: .*(cut off|damaged)"):
        decode_audio(path.read_bytes(), name="tone.mp3")


def test_streamed_wav_has_no_length_and_is_whole(tmp_path: Path) -> None:
    """Programs that write to a pipe leave a placeholder for the length in the header."""
    soundfile.write(tmp_path / "pipe.wav", tone(RATE_HZ), RATE_HZ)
    data = bytearray((tmp_path / "pipe.wav").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "pipe.wav").write_bytes(data)
    heard, _ = load_audio(tmp_path / "pipe.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert error_of(heard) < 1e-3


@pytest.mark.parametrize("rate", [1, 500])
def test_slow_sound_is_a_sound(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "slow.wav", np.full(2 * rate + 1, 0.25), rate)
    heard, notes = load_audio(tmp_path / "slow.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)
    assert notes[0].startswith("slow.wav: ")
    assert f"{rate} -> 16000 Hz" in notes[0]
    assert abs(heard.samples[RATE_HZ] - 0.25) < 0.05


def test_absurd_rates_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fast.wav", tone(RATE_HZ), 2_000_000)
    with pytest.raises(MediaError, match=r"fast\.wav: has 1 channels at 2000000 Hz, which is no"):
        load_audio(tmp_path / "fast.wav", sample_rate_hz=RATE_HZ, duration_s=2.0)


def test_same_file_gives_the_same_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.mp3", tone(44100), 44100)
    first, second = (
        load_audio(tmp_path / "tone.mp3", sample_rate_hz=RATE_HZ, duration_s=2.0)[0]
        for _ in range(2)
    )
    assert (first.samples == second.samples).all()


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_round_trip_is_exact_to_16_bits(tmp_path: Path, suffix: str) -> None:
    source = np.array([0, 1, -1, 0.5, -0.25, 1 / 32768], np.float32)
    save_audio(tmp_path / f"a.{suffix}", Audio(source, RATE_HZ))
    once = decode_audio((tmp_path / f"a.{suffix}").read_bytes())
    assert once.sample_rate_hz == RATE_HZ
    assert np.abs(once.samples - source).max() <= 1 / 32768
    once.save(tmp_path / f"b.{suffix}")
    twice = decode_audio((tmp_path / f"b.{suffix}").read_bytes())
    assert (once.samples == twice.samples).all()
    files = [tmp_path / f"{stem}.{suffix}" for stem in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(4), RATE_HZ, "samples are float64; give a float32"),
        (np.zeros((4, 2), np.float32), RATE_HZ, r"shape \(4, 2\)"),
        ([0.0], RATE_HZ, "list"),
        (np.zeros(4, np.float32), 0, "sample_rate_hz is 0"),
    ],
)
def test_wrong_arrays_are_named(samples: Any, rate: int, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        Audio(samples, rate)


@pytest.mark.parametrize(
    ("name", "samples", "words"),
    [
        ("a.wav", [np.nan, 0], r"a\.wav: 1 of 2 samples are not numbers"),
        ("a.wav", [1.25, 0], r"a\.wav: the audio's peak is 1\.25, above 1"),
        ("a.flac", [0.0], r"a\.flac: sound at 700000 Hz cannot be written as FLAC"),
        ("a.wav", [], r"a\.wav: the audio has no samples"),
        ("a.mp3", [0.0], r"a\.mp3: .* end the name in \.wav or \.flac"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, name: str, samples: Any, words: str) -> None:
    audio = Audio(np.array(samples, np.float32), 700_000 if name == "a.flac" else RATE_HZ)
    with pytest.raises(MediaError, match=words):
        save_audio(tmp_path / name, audio)
    assert list(tmp_path.iterdir()) == []


def test_decode_audio_keeps_rate_and_length(make: Any) -> None:
    for file_format, subtype in (("FLAC", None), ("WAV", "FLOAT"), ("OGG", None), ("MP3", None)):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone(RATE_HZ, 0.7), RATE_HZ, format=file_format, subtype=subtype)
        audio = decode_audio(buffer.getvalue())
        assert audio.sample_rate_hz == RATE_HZ
        assert abs(len(audio.samples) - 11200) <= (1200 if file_format == "MP3" else 0)
    with pytest.raises(MediaError, match=r"7\.audio\.flac: is empty"):
        decode_audio(b"", name="7.audio.flac")


def test_fit_audio_agrees_with_load_audio(tmp_path: Path) -> None:
    """The data package gets the very samples that a user gets for the same sound."""
    for rate, length_s in ((44100, 3.0), (8000, 0.5), (RATE_HZ, 2.0)):
        path = tmp_path / "tone.wav"
        soundfile.write(path, tone(rate, length_s), rate)
        loaded, notes = load_audio(path, sample_rate_hz=RATE_HZ, duration_s=2.0)
        fitted, note = fit_audio(decode_audio(path.read_bytes()), RATE_HZ, 2.0)
        assert (fitted.samples == loaded.samples).all()
        assert [f"tone.wav: {note}"] == notes or (note is None and notes == [])


def test_fit_audio_refuses_nothing_and_nan() -> None:
    with pytest.raises(MediaError, match="the audio has no samples"):
        fit_audio(Audio(np.zeros(0, np.float32), RATE_HZ), RATE_HZ, 1.0)
    with pytest.raises(MediaError, match="not numbers"):
        fit_audio(Audio(np.full(4, np.nan, np.float32), RATE_HZ), RATE_HZ, 1.0)
    with pytest.raises(MediaError, match="duration_s is -1"):
        fit_audio(Audio(np.zeros(4, np.float32), RATE_HZ), RATE_HZ, -1)


def test_audio_knows_its_length_and_shows_itself() -> None:
    audio = Audio(tone(RATE_HZ, 1.5), RATE_HZ)
    assert audio.duration_s == 1.5
    assert repr(audio) == "Audio(24000 samples at 16000 Hz, 1.5 s)"
    assert audio._repr_html_().startswith('<audio controls src="data:audio/wav;base64,')
