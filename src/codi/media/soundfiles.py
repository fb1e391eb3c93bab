"""Sound files read with soundfile, the beginning only. What it does not know is left to PyAV."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import ceil
from typing import BinaryIO

from codi.media.container import Sound
from codi.media.errors import cut_off, promise
from codi.media.sniff import head_of

# libsndfile's way to say that a file does not tell its length.
_UNKNOWN_LENGTH = 2**62
# Lengths that programs write into a WAV header while they do not yet know the real one.
_PLACEHOLDERS = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_MOST_CHUNKS = 100
# The first frame of an MP3 file may be a tag that tells the file's size: where it stands in the
# frame goes by version and channels, and where the size stands in it by the flags.
_MP3_TAGS, _MP3_TAG_PLACES, _MP3_TAG_BYTES = (b"Xing", b"Info"), (13, 21, 36), 64
_HAS_FRAMES, _HAS_SIZE = 1, 2
# Samples of an MP3 frame from this rate on; below it is half of that.
_FRAME, _MPEG_1_HZ = 1152, 32_000
# Sounds of which less than this share can be decoded are damaged; an encoder's run-up is no damage.
_LEAST_HEARD = 0.8


def read_with_soundfile(
    handle: BinaryIO, source: str | os.PathLike[str], need_s: float | None
) -> Sound | None:
    """Read the first `need_s` seconds, or all of it for None; None when soundfile cannot.

    Raises:
        MediaError: the file ends before what is needed, though its header promises it.
    """
    import soundfile

    if _is_mp3(handle):  # libmpg123 prints warnings of damaged files past all of us
        return None
    try:
        with soundfile.SoundFile(handle) as file:
            rate = file.samplerate
            known = file.frames < _UNKNOWN_LENGTH
            if need_s is None and not known:
                return None
            want = file.frames if need_s is None else min(file.frames, ceil(need_s * rate))
            samples = file.read(want, dtype="float32", always_2d=True)  # (S, C)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: it guessed raw data
        return None
    total_s = file.frames / rate if known else None
    if known and len(samples) < want:
        raise cut_off(source, promise(total_s or 0.0, len(samples) / rate))
    sound = Sound(samples, rate, total_s)
    if need_s is None or len(samples) < ceil(need_s * rate):
        require_whole(handle, source, sound)
    return sound


def knows_sound(handle: BinaryIO) -> bool:
    """Say whether soundfile reads the file."""
    import soundfile

    if _is_mp3(handle):
        return False
    try:
        with soundfile.SoundFile(handle):
            return True
    except (soundfile.LibsndfileError, TypeError):
        return False


def _is_mp3(handle: BinaryIO) -> bool:
    """Say whether a file begins as MP3 does: with an ID3 tag, or the sync bits of a frame."""
    head = head_of(handle)
    return head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def require_whole(handle: BinaryIO, source: str | os.PathLike[str], sound: Sound) -> None:
    """Compare a sound read to its end with what a WAV or MP3 header promises; decoders do not.

    Raises:
        MediaError: the end is missing, or much of the sound is damaged.
    """
    told = _told(handle)
    if told is None:
        return
    there = handle.seek(0, os.SEEK_END) - told.begin
    if told.size is not None and there < told.size:
        problem = f"its header promises {told.size} bytes of sound, but only {max(there, 0)} are"
        raise cut_off(source, f"{problem} there")
    rate = sound.sample_rate_hz
    heard_s = len(sound.samples) / rate
    promised_s = (told.frames or 0) * (_FRAME if rate >= _MPEG_1_HZ else _FRAME // 2) / rate
    if heard_s < _LEAST_HEARD * promised_s:
        raise cut_off(source, promise(promised_s, heard_s))


@dataclass(frozen=True)
class _Told:
    """What a header promises: where the sound begins, its bytes, its frames (of MP3)."""

    begin: int
    size: int | None
    frames: int | None = None


def _told(handle: BinaryIO) -> _Told | None:
    if _is_mp3(handle):
        return _told_by_mp3(handle)
    head = head_of(handle)
    return _told_by_wav(handle) if head[:4] == b"RIFF" and head[8:12] == b"WAVE" else None


def _told_by_wav(handle: BinaryIO) -> _Told | None:
    handle.seek(12)
    for _ in range(_MOST_CHUNKS):
        chunk = handle.read(8)
        if len(chunk) < 8:
            return None
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            return None if size in _PLACEHOLDERS else _Told(handle.tell(), size)
        handle.seek(size + size % 2, os.SEEK_CUR)
    return None


def _told_by_mp3(handle: BinaryIO) -> _Told | None:
    begin = _after_id3(head_of(handle))
    handle.seek(begin)
    frame = handle.read(_MP3_TAG_BYTES)
    place = next((p for p in _MP3_TAG_PLACES if frame[p : p + 4] in _MP3_TAGS), None)
    if place is None or len(frame) < _MP3_TAG_BYTES:
        return None
    flags, *numbers = struct.unpack_from(">III", frame, place + 4)
    frames = numbers.pop(0) if flags & _HAS_FRAMES else None
    return _Told(begin, numbers[0] if flags & _HAS_SIZE else None, frames)


def _after_id3(head: bytes) -> int:
    """Return where the sound begins in an MP3 file: behind the ID3v2 tag that it may begin with."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
