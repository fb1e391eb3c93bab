"""Files, opened with a clear error and written all or nothing. Knows nothing of formats."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codi.media.errors import MediaError, fault, read_fault, write_fault


@contextlib.contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular, non-empty file for reading.

    The handle carries no name, so that decoders judge the contents, never the ending of the name.

    Raises:
        MediaError: missing, a folder, a device, empty or not readable.
    """
    # Non-blocking, since opening a pipe that nobody writes to would otherwise wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise read_fault(path, error) from error
    except ValueError as error:  # a NUL inside the name
        raise fault(path, "is not a possible file name", "check the path") from error
    try:
        _require_regular(path, os.fstat(descriptor))
    except MediaError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as handle:
        yield handle


def open_bytes(data: bytes, name: str) -> BinaryIO:
    """Open a file held in memory.

    Raises:
        MediaError: there are no bytes in it.
    """
    if not data:
        raise fault(name, "is empty (0 bytes)", "leave it out or write it anew")
    return io.BytesIO(data)


def _require_regular(path: str | os.PathLike[str], state: os.stat_result) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise fault(path, "is a folder", "name a file inside it")
    if not stat.S_ISREG(state.st_mode):
        raise fault(path, "is a pipe or a device, not a file", "save it to a file first")
    if state.st_size == 0:
        raise fault(path, "is empty (0 bytes)", "copy or save it again")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, and move it there when the block succeeds.

    Readers see the old file or the whole new one, never a part. When the block fails, by
    `KeyboardInterrupt` too, the temporary file is removed and the old file stays. A link is
    followed: the file that it points to is replaced. The new file has the permissions of any new
    file here, even where the block puts a file of its own in the place of the temporary one.

    Raises:
        MediaError: the folder is missing or not writable, `path` is a folder, the disk is full.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise fault(path, "is a folder", "add a file name to it")
        temporary = _create_beside(target)
        mode = stat.S_IMODE(temporary.stat().st_mode)
    except OSError as error:
        raise write_fault(path, error) from error
    except ValueError as error:
        if isinstance(error, MediaError):
            raise
        raise fault(path, "is not a possible file name", "check the path") from error
    try:
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            temporary.chmod(mode)
        _flush_to_disk(temporary)
        temporary.replace(target)
    except OSError as error:
        raise write_fault(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)  # already gone when it was moved


def _create_beside(target: Path) -> Path:
    """Create an empty file with the permissions that any new file here would have."""
    # Short, so that a target whose name has the longest legal length still works.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def _flush_to_disk(path: Path) -> None:
    """Reach the disk before the rename, so that a power cut cannot leave an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, all or nothing.

    Raises:
        MediaError: see `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8 exactly as given, all or nothing.

    Raises:
        MediaError: see `atomic_path`; also text that UTF-8 cannot hold (half a surrogate pair).
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        broken = ascii(text[error.start])
        raise fault(
            path, f"the text holds {broken}, which is half a character", "remove it"
        ) from error
    atomic_write_bytes(path, data)
