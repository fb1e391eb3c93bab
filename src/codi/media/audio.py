"""Sound: files of any rate, channels and length to mono samples, and back to files."""

from __future__ import annotations

import base64
import io
import math
import os
from dataclasses import dataclass
from math import ceil, log10
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codi.media.container import Sound, open_container, picture_stream, read_sound, sound_stream
from codi.media.errors import MediaError, display, fault, require_positive, seconds, used
from codi.media.files import atomic_write_bytes, open_bytes, open_media
from codi.media.sniff import head_of, sniff, unreadable
from codi.media.soundfiles import knows_sound, read_with_soundfile, require_whole

# Above, a file is no recording: the beginning alone would fill the memory. The resampler takes all.
_HIGHEST_RATE_HZ = 1_000_000
_MOST_CHANNELS = 64
# Read beyond what is used, so that the resampler knows how the sound goes on.
_RESAMPLER_TAIL_S = 0.1
# A peak over 1 is turned down; by less than this nobody would hear it, nor read of it.
_AUDIBLE_DB = 0.5
# A sound shorter than the wish by less than this is not worth a word.
_SHORT_S = 0.001
_WRITERS = {".wav": "WAV", ".flac": "FLAC"}
_FULL_SCALE_16_BIT = 32768


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono sound.

    Attributes:
        samples: float32 (S,), in [-1, 1].
        sample_rate_hz: Samples per second.

    Raises:
        MediaError: samples of another shape or type, or a rate that is not positive.
    """

    samples: np.ndarray
    sample_rate_hz: int

    def __post_init__(self) -> None:
        require_positive(sample_rate_hz=self.sample_rate_hz)
        if not isinstance(self.samples, np.ndarray) or self.samples.dtype != np.float32:
            kind = getattr(self.samples, "dtype", type(self.samples).__name__)
            raise MediaError(f"samples are {kind}; give a float32 array (S,) in [-1, 1]")
        if self.samples.ndim != 1:
            raise MediaError(f"samples have shape {self.samples.shape}; give mono samples (S,)")

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    def __repr__(self) -> str:
        rate_hz, count = self.sample_rate_hz, len(self.samples)
        return f"Audio({count} samples at {rate_hz} Hz, {seconds(self.duration_s)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a 16 bit WAV (or FLAC) file; see `save_audio`."""
        save_audio(path, self)

    def _repr_html_(self) -> str:
        """Show a player in a notebook, with the sound inside the page."""
        data = base64.b64encode(_encode(self, "WAV", "audio")).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


def load_audio(
    path: str | os.PathLike[str], *, sample_rate_hz: int, duration_s: float
) -> tuple[Audio, list[str]]:
    """Read the beginning of a sound, or of the sound track of a video, as mono samples.

    Args:
        path: WAV, FLAC, MP3, OGG, M4A or any other container that PyAV reads.
        sample_rate_hz: Rate of the samples that come back.
        duration_s: Their length: a longer sound is cut, a shorter one followed by silence.

    Returns:
        Audio of round(duration_s * sample_rate_hz) samples, and at most one line that says what
        was changed.

    Raises:
        MediaError: no such file, no sound in it, damaged or cut off, samples that are not numbers.
    """
    require_positive(sample_rate_hz=sample_rate_hz, duration_s=duration_s)
    with open_media(path) as handle:
        sound = _read(handle, path, duration_s + _RESAMPLER_TAIL_S)
    mono, changes = _to_mono(sound, path)
    rate = sound.sample_rate_hz
    read_s = len(mono) / rate
    if read_s < duration_s + _RESAMPLER_TAIL_S - _SHORT_S:  # to its end, whatever the file tells
        total_s = read_s
    elif sound.total_s is None:  # a recording that is still written, say
        total_s = math.inf
    else:
        total_s = max(sound.total_s, read_s)
    samples, fit_changes = _fit(mono, rate, total_s, sample_rate_hz, duration_s)
    if not samples.any():
        fit_changes.append("nothing but silence in it")
    note = f"{display(Path(path).name)}: {', '.join(changes + fit_changes)}"
    return Audio(samples, sample_rate_hz), [note] if changes or fit_changes else []


def has_audio(path: str | os.PathLike[str]) -> bool:
    """Say whether a sound or video file has a sound track.

    Raises:
        MediaError: the file is missing or is no media at all.
    """
    with open_media(path) as handle:
        if knows_sound(handle):
            return True
        with open_container(handle, path, "audio") as container:
            return sound_stream(container) is not None


def decode_audio(data: bytes, *, name: str = "audio") -> Audio:
    """Read a whole sound held in memory: mono, at its own rate.

    Args:
        data: The bytes of a sound file.
        name: What error lines call it.

    Raises:
        MediaError: not a sound, damaged, cut off, or samples that are not numbers.
    """
    sound = _read(open_bytes(data, name), name, None)
    mono, _ = _to_mono(sound, name)
    return Audio(_turned_down(mono, []), sound.sample_rate_hz)


def fit_audio(audio: Audio, sample_rate_hz: int, duration_s: float) -> tuple[Audio, str | None]:
    """Resample a sound and make it exactly as long as asked, by cutting or by silence.

    Returns:
        Audio of round(duration_s * sample_rate_hz) samples, and what was changed, if anything.

    Raises:
        MediaError: no samples, or samples that are not numbers.
    """
    require_positive(sample_rate_hz=sample_rate_hz, duration_s=duration_s)
    if len(audio.samples) == 0:
        raise MediaError("the audio has no samples; leave it out or give it some")
    _require_finite(audio.samples, "audio")
    keep = ceil((duration_s + _RESAMPLER_TAIL_S) * audio.sample_rate_hz)
    samples, changes = _fit(
        audio.samples[:keep], audio.sample_rate_hz, audio.duration_s, sample_rate_hz, duration_s
    )
    return Audio(samples, sample_rate_hz), ", ".join(changes) or None


def save_audio(path: str | os.PathLike[str], audio: Audio) -> None:
    """Write a sound with 16 bits a sample, all or nothing.

    Args:
        path: `.wav` or `.flac`.
        audio: Samples in [-1, 1].

    Raises:
        MediaError: unknown ending, samples out of range, folder not writable.
    """
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        known = " or ".join(_WRITERS)
        raise fault(path, f"sound is not written as '{ending}'", f"end the name in {known}")
    atomic_write_bytes(path, _encode(audio, _WRITERS[ending], path))


def require_playable(audio: Audio, source: str | os.PathLike[str]) -> None:
    """Reject sound that no file can hold.

    Raises:
        MediaError: no samples, NaN or inf, or samples outside [-1, 1].
    """
    if len(audio.samples) == 0:
        raise fault(source, "the audio has no samples", "leave it out or give it some")
    _require_finite(audio.samples, source)
    peak = float(np.abs(audio.samples).max())
    if peak > 1:
        raise fault(source, f"the audio's peak is {peak:.3g}, above 1", "divide it by its peak")


def _encode(audio: Audio, file_format: str, source: str | os.PathLike[str]) -> bytes:
    import soundfile

    require_playable(audio, source)
    top = _FULL_SCALE_16_BIT
    whole = np.clip(np.round(audio.samples * top), -top, top - 1).astype(np.int16)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, whole, audio.sample_rate_hz, format=file_format, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        problem = f"sound at {audio.sample_rate_hz} Hz cannot be written as {file_format}"
        raise fault(source, problem, "resample it to 16000 or 44100 Hz") from error
    return buffer.getvalue()


def _read(handle: BinaryIO, source: str | os.PathLike[str], need_s: float | None) -> Sound:
    """Read with soundfile; what it does not know goes to PyAV."""
    sound = read_with_soundfile(handle, source, need_s)
    if sound is None:
        sound = _read_with_pyav(handle, source, need_s)
    rate, channels = sound.sample_rate_hz, sound.samples.shape[1]
    if len(sound.samples) == 0:
        raise fault(source, "holds no sound (0 samples)", "record or export it again")
    if not 1 <= rate <= _HIGHEST_RATE_HZ or channels > _MOST_CHANNELS:
        problem = f"has {channels} channels at {rate} Hz, which is no recording"
        raise fault(source, problem, "export it again, for example as a 44100 Hz WAV file")
    return sound


def _read_with_pyav(
    handle: BinaryIO, source: str | os.PathLike[str], need_s: float | None
) -> Sound:
    head = head_of(handle)
    if sniff(head)[0] in ("image", "text"):
        raise unreadable(source, head, "audio")
    with open_container(handle, source, "audio") as container:
        sound = read_sound(container, source, need_s)
        if sound is None:
            what = "a video without a sound track" if picture_stream(container) else "no sound"
            raise fault(source, f"is {what}", "give a file with sound")
    if need_s is None or len(sound.samples) < ceil(need_s * sound.sample_rate_hz):
        require_whole(handle, source, sound)
    return sound


def _to_mono(sound: Sound, source: str | os.PathLike[str]) -> tuple[np.ndarray, list[str]]:
    _require_finite(sound.samples, source)
    channels = sound.samples.shape[1]
    if channels == 1:
        return sound.samples[:, 0], []
    return sound.samples.mean(axis=1, dtype=np.float32), [f"{channels} channels mixed to mono"]


def _fit(
    mono: np.ndarray, rate: int, total_s: float, sample_rate_hz: int, duration_s: float
) -> tuple[np.ndarray, list[str]]:
    """Return samples (S,) of exactly the rate and length asked for, and what was changed.

    Args:
        mono: float32 (S,) at `rate`: the beginning of the sound, a little longer than needed.
        rate: Samples per second of `mono`.
        total_s: Length of the whole sound that `mono` is the beginning of; infinite where it is
            longer than that and the file does not tell.
        sample_rate_hz: Rate of the result.
        duration_s: Length of the result.
    """
    changes = []
    count = max(1, round(duration_s * sample_rate_hz))
    if total_s > duration_s + _SHORT_S:
        changes.append(used(duration_s, None if math.isinf(total_s) else total_s))
    if rate != sample_rate_hz:
        changes.append(f"{rate} -> {sample_rate_hz} Hz")
        mono = _resample(mono, rate, sample_rate_hz)
    samples = _turned_down(mono[:count], changes)
    if total_s < duration_s - _SHORT_S:
        changes.append(
            f"only {seconds(total_s)} long, so that silence fills it up to {seconds(duration_s)}"
        )
    return np.pad(samples, (0, count - len(samples))), changes


def _resample(mono: np.ndarray, rate: int, sample_rate_hz: int) -> np.ndarray:
    import soxr

    return soxr.resample(mono, rate, sample_rate_hz, quality="HQ")


def _turned_down(mono: np.ndarray, changes: list[str]) -> np.ndarray:
    """Divide sound that leaves [-1, 1] by its peak, rather than clip it."""
    peak = float(np.abs(mono).max(initial=0.0))
    if peak <= 1:
        return mono
    loss_db = 20 * log10(peak)
    if loss_db >= _AUDIBLE_DB:
        changes.append(f"turned down by {loss_db:.1f} dB, since its peak was {peak:.3g}")
    return np.clip(mono / np.float32(peak), -1, 1)


def _require_finite(samples: np.ndarray, source: str | os.PathLike[str]) -> None:
    bad = int(np.size(samples) - np.count_nonzero(np.isfinite(samples)))
    if bad:
        problem = f"{bad} of {np.size(samples)} samples are not numbers (NaN or inf)"
        raise fault(source, problem, "export it again")
