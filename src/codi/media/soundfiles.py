"""Sound files read with soundfile, the beginning only. What it does not know is left to PyAV."""

from __future__ import annotations

import io
import os
import struct
from math import ceil
from typing import BinaryIO

from codi.media.container import Sound
from codi.media.errors import cut_off, promise

# libsndfile's way to say that a file does not tell its length.
_UNKNOWN_LENGTH = 2**62
# Lengths that programs write into a WAV header while they do not yet know the real one.
_PLACEHOLDERS = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_MOST_CHUNKS = 100
# The first frame of an MP3 file may be a tag that tells the file's size: where it stands in the
# frame goes by version and channels, and where the size stands in it by the flags.
_SIZE_TAGS, _SIZE_TAG_PLACES = (b"Xing", b"Info"), (13, 21, 36)
_HAS_FRAMES, _HAS_SIZE = 1, 2


def read_with_soundfile(
    handle: BinaryIO, source: str | os.PathLike[str], need_s: float | None
) -> Sound | None:
    """Read the first `need_s` seconds, or all of it for None; None when soundfile cannot.

    Raises:
        MediaError: the file ends before what is needed, though its header promises it.
    """
    import soundfile

    try:
        with soundfile.SoundFile(_with_true_size(handle)) as file:
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
    if need_s is None or len(samples) < ceil(need_s * rate):
        _require_whole_wav(handle, source)
    return Sound(samples, rate, total_s)


def knows_sound(handle: BinaryIO) -> bool:
    """Say whether soundfile can open the file."""
    import soundfile

    try:
        with soundfile.SoundFile(_with_true_size(handle)):
            return True
    except (soundfile.LibsndfileError, TypeError):
        return False


def _with_true_size(handle: BinaryIO) -> BinaryIO:
    """Return the file from its beginning; an MP3 file that tells another size than its own, mended.

    The size serves jumps alone, but when it is wrong, libmpg123 prints a warning past all of us.
    """
    handle.seek(0)
    begin = _after_id3(handle.read(10))
    handle.seek(begin)
    frame = handle.read(64)
    size = handle.seek(0, os.SEEK_END) - begin
    handle.seek(0)
    place = next((p for p in _SIZE_TAG_PLACES if frame[p : p + 4] in _SIZE_TAGS), None)
    if place is None or len(frame) < 64 or frame[0] != 0xFF:
        return handle
    (flags,) = struct.unpack_from(">I", frame, place + 4)
    at = place + (12 if flags & _HAS_FRAMES else 8)
    (told,) = struct.unpack_from(">I", frame, at)
    if not flags & _HAS_SIZE or abs(told - size) <= size / 200:  # the warning begins at 1 %
        return handle
    data = bytearray(handle.read())
    struct.pack_into(">I", data, begin + at, size)
    return io.BytesIO(data)


def _after_id3(head: bytes) -> int:
    """Return where the sound begins in an MP3 file: behind the ID3v2 tag that it may begin with."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _require_whole_wav(handle: BinaryIO, source: str | os.PathLike[str]) -> None:
    """Compare the length in a WAV file's header with the file; libsndfile takes what is there."""
    handle.seek(0)
    head = handle.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    for _ in range(_MOST_CHUNKS):
        chunk = handle.read(8)
        if len(chunk) < 8:
            return
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            break
        handle.seek(size + size % 2, os.SEEK_CUR)
    else:
        return
    begin = handle.tell()
    there = handle.seek(0, os.SEEK_END) - begin
    if size not in _PLACEHOLDERS and there < size:
        problem = f"its header promises {size} bytes of sound, but only {there} are there"
        raise cut_off(source, problem)
