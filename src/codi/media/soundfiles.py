"""Sound files read with soundfile, the beginning only. What it does not know is left to PyAV."""

from __future__ import annotations

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


def read_with_soundfile(
    handle: BinaryIO, source: str | os.PathLike[str], need_s: float | None
) -> Sound | None:
    """Read the first `need_s` seconds, or all of it for None; None when soundfile cannot.

    Raises:
        MediaError: the file ends before what is needed, though its header promises it.
    """
    import soundfile

    handle.seek(0)
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
    if need_s is None or len(samples) < ceil(need_s * rate):
        _require_whole_wav(handle, source)
    return Sound(samples, rate, total_s)


def knows_sound(handle: BinaryIO) -> bool:
    """Say whether soundfile can open the file."""
    import soundfile

    handle.seek(0)
    try:
        with soundfile.SoundFile(handle):
            return True
    except (soundfile.LibsndfileError, TypeError):
        return False


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
