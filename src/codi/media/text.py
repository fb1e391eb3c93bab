"""Text: prompts and small text files, valid and tidy. Knows no tokenizer."""

from __future__ import annotations

import codecs
import os
import unicodedata
from pathlib import Path

from codi.media.errors import MediaError, display, fault
from codi.media.files import atomic_write_text, open_media
from codi.media.sniff import HEAD_BYTES, sniff, unreadable

MAX_BYTES = 1_000_000
"""How much of a text file is read as a prompt: its beginning."""

_PROMPT = "text"
# Letters, marks on them, numbers, punctuation, symbols: what makes a text visible.
_VISIBLE = frozenset("LNPS")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def load_text(source: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Read a prompt: NFC, every run of white space one space, no white space around it.

    Args:
        source: A string, which is the text itself, whatever it ends in and whatever files there
            are; or a path object, which names a text file.

    Returns:
        The text, and at most one line that says what was cut or changed.

    Raises:
        MediaError: neither text nor a path, no such file, not UTF-8, control characters, or empty.
    """
    if isinstance(source, str):
        return _tidy(source, _PROMPT, [])
    if not isinstance(source, os.PathLike):
        kind = type(source).__name__
        raise fault(_PROMPT, f"is of type {kind}", "give a string, or the path object of a file")
    path = os.fspath(source)
    text, cuts = _read(path)
    return _tidy(text, display(Path(path).name), cuts)


def save_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8 with a line end after it, all or nothing.

    Raises:
        MediaError: text that UTF-8 cannot hold, or a folder that is not writable.
    """
    atomic_write_text(path, text if text.endswith("\n") else f"{text}\n")


def _read(path: str) -> tuple[str, list[str]]:
    """Return the text of a file as far as it is read, and what was cut."""
    with open_media(path) as handle:
        data = handle.read(MAX_BYTES)
        size = handle.seek(0, os.SEEK_END)
    if data.startswith(_UTF16_MARKS):
        raise fault(path, "is UTF-16 text, not UTF-8", "save it with the encoding UTF-8")
    if b"\0" in data:
        raise unreadable(path, data[:HEAD_BYTES], "text")
    is_whole = size == len(data)
    # The character that the cut goes through is left out.
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        text = decoder.decode(data, final=is_whole)
    except UnicodeDecodeError as error:
        if sniff(data[:HEAD_BYTES])[0]:
            raise unreadable(path, data[:HEAD_BYTES], "text") from error
        at = error.start + len(data) - len(error.object)  # counted behind a mark of UTF-8
        problem = f"byte 0x{data[at]:02x} at position {at} is not UTF-8"
        raise fault(path, problem, "save it with the encoding UTF-8") from error
    return text, [] if is_whole else [f"used the first {len(data):,} of {size:,} bytes"]


def _tidy(text: str, name: str, cuts: list[str]) -> tuple[str, list[str]]:
    changes = list(cuts)
    composed = unicodedata.normalize("NFC", text)
    if composed != text:
        changes.append("normalised to Unicode NFC")
    tidy = " ".join(composed.split())
    if tidy != composed.removesuffix("\n"):
        changes.append("white space collapsed")
    _require_printable(tidy, name)
    if not any(unicodedata.category(letter)[0] in _VISIBLE for letter in tidy):
        raise MediaError(f"{name}: the text is empty; write a few words")
    return tidy, [f"{name}: {', '.join(changes)}"] if changes else []


def _require_printable(text: str, name: str) -> None:
    for position, letter in enumerate(text):
        category = unicodedata.category(letter)
        if category == "Cs":
            raise fault(name, f"character {position + 1} is not valid UTF-8", "type it again")
        if category == "Cc":
            problem = f"character {position + 1} is the control character U+{ord(letter):04X}"
            raise fault(name, problem, "remove it")
