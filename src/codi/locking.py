"""Work that several processes want done: one of them does it, the others wait or are refused.

Locks are the system's own, so that one whose holder was killed is free again. The file of a lock
stays; it says nothing by being there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from codi.config import ConfigError

Progress = Callable[[str, int], "Iterable[int]"]
"""Wraps a range with a progress bar: (what, count) -> indices."""


@contextlib.contextmanager
def locked(path: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of the file `path` during the block.

    Args:
        path: File of the lock; its folder is made.
        progress: Shows that another holder is waited for. Without it nothing waits.

    Raises:
        ConfigError: another process holds the lock, and there is no `progress`.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        if progress is None:
            raise ConfigError(
                f"{path.parent}: another process is at work on it; wait until it has ended, or "
                "stop it"
            ) from error
        for _ in progress(f"waiting for another process to make {path.stem}", 1):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
