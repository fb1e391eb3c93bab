"""What a file is, told from its first bytes, for error lines that name the right mend.

Decoders decide what can be read; this table only puts a name to what they refuse.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from codi.media.errors import MediaError, fault

HEAD_BYTES = 64


@dataclass(frozen=True)
class Kind:
    """A kind of media: how to say it, the option that takes it, the formats that are read.

    `carriers` are the kinds of file that may hold it: a video has a sound track.
    """

    phrase: str
    option: str
    formats: str
    carriers: frozenset[str | None]


KINDS = {
    "image": Kind("a picture", "--image", "PNG, JPEG or WebP", frozenset({"image"})),
    "video": Kind("a video", "--video", "MP4, WebM or GIF", frozenset({"video", "image"})),
    "audio": Kind("a sound", "--audio", "WAV, FLAC, MP3 or OGG", frozenset({"audio", "video"})),
    "text": Kind("a text", "--text", "plain UTF-8 text", frozenset({"text"})),
}

# (offset, bytes, kind or None where no option takes it, name). The first match wins.
_SIGNATURES: tuple[tuple[int, bytes, str | None, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image", "a PNG picture"),
    (0, b"\xff\xd8\xff", "image", "a JPEG picture"),
    (8, b"WEBP", "image", "a WebP picture"),
    (0, b"BM", "image", "a BMP picture"),
    (0, b"II*\x00", "image", "a TIFF picture"),
    (0, b"MM\x00*", "image", "a TIFF picture"),
    (4, b"ftypavif", "image", "an AVIF picture"),
    (4, b"ftyphei", None, "a HEIC picture, which codi does not read"),
    (4, b"ftypmif1", None, "a HEIF picture, which codi does not read"),
    (0, b"GIF8", "image", "a GIF picture"),
    (4, b"ftypM4A", "audio", "an M4A sound"),
    (4, b"ftypM4B", "audio", "an M4B audio book"),
    (4, b"ftyp", "video", "an MP4 or MOV video"),
    (0, b"\x1a\x45\xdf\xa3", "video", "a Matroska or WebM video"),
    (8, b"AVI ", "video", "an AVI video"),
    (0, b"FLV\x01", "video", "an FLV video"),
    (0, b"\x00\x00\x01\xba", "video", "an MPEG video"),
    (0, b"\x00\x00\x01\xb3", "video", "an MPEG video"),
    (0, b"\x00\x00\x00\x01", "video", "an H.264 or H.265 video"),
    (0, b"YUV4MPEG2", "video", "a YUV4MPEG2 video"),
    (0, b"\x06\x0e\x2b\x34", "video", "an MXF video"),
    (0, b"\xb7\xd8\x00\x20", "video", "a WTV recording"),
    (0, b"\x00\x00\x00\x00\x01\xbc", "video", "a GXF video"),
    (0, b"\x1f\x07\x00", "video", "a DV video"),
    (0, b".RMF", "video", "a RealMedia video"),
    (8, b"WAVE", "audio", "a WAV sound"),
    (0, b"fLaC", "audio", "a FLAC sound"),
    (0, b"OggS", "audio", "an OGG sound"),
    (0, b"ID3", "audio", "an MP3 sound"),
    (0, b"\xff\xfb", "audio", "an MP3 sound"),
    (0, b"\xff\xf3", "audio", "an MP3 sound"),
    (0, b"\xff\xf1", "audio", "an AAC sound"),
    (8, b"AIFF", "audio", "an AIFF sound"),
    (8, b"AIFC", "audio", "an AIFF sound"),
    (0, b"%PDF", None, "a PDF document"),
    (0, b"PK\x03\x04", None, "a ZIP archive or an office document"),
    (0, b"\x1f\x8b", None, "a gzip archive"),
    (0, b"{\\rtf", None, "an RTF document"),
    (0, b"\x7fELF", None, "a program"),
)


def sniff(head: bytes) -> tuple[str | None, str | None]:
    """Return (kind, name) for the first bytes of a file; (None, None) when they say nothing."""
    is_text = _reads_as_text(head)
    for offset, magic, kind, name in _SIGNATURES:
        # Two or three letters may as well begin a text.
        certain = len(magic) >= 4 or not is_text
        if certain and head[offset : offset + len(magic)] == magic:
            return kind, name
    return ("text", "a text file") if is_text else (None, None)


def _reads_as_text(head: bytes) -> bool:
    try:
        text = head[: HEAD_BYTES - 4].decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        # A character cut in half by the end of the head is still text.
        if error.start < len(head[: HEAD_BYTES - 4]) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)


def _breaks_off(error: Exception | None) -> bool:
    return isinstance(error, EOFError) or "truncat" in str(error).lower()


def head_of(handle: BinaryIO) -> bytes:
    """Return the first bytes of an open file and leave it at its beginning."""
    handle.seek(0)
    head = handle.read(HEAD_BYTES)
    handle.seek(0)
    return head


def unreadable(
    source: str | os.PathLike[str], head: bytes, wanted: str, error: Exception | None = None
) -> MediaError:
    """Say why a file is not the media that was asked for.

    Args:
        source: The file as the user named it.
        head: Its first bytes.
        wanted: A key of `KINDS`.
        error: What the decoder raised, which matters only where the file begins well.
    """
    kind, name = sniff(head)
    want = KINDS[wanted]
    if name is None:
        shown = head[:4].hex(" ")
        problem = f"is not {want.phrase} that codi can read (it begins with the bytes {shown})"
        return fault(source, problem, f"convert it to {want.formats}")
    if kind in want.carriers:
        if _breaks_off(error):
            problem = f"begins like {name}, but breaks off in the middle"
            return fault(source, problem, "copy it again or save it anew")
        problem = f"begins like {name}, but its data are not valid"
        return fault(source, problem, "it is damaged or cut off, so copy it again or save it anew")
    mend = f"use {KINDS[kind].option}" if kind else f"convert it to {want.formats}"
    return fault(source, f"is {name}, not {want.phrase}", mend)
