"""Work that nothing is to cut through: no other process that wants it too, and no signal.

Locks are the system's own, so that one whose holder was killed is free again. The file of a lock
stays; it says nothing by being there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from codi.config import ConfigError
from codi.progress import Progress


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


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block, which is short.

    Outside the main thread, where no signal arrives, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    handlers = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for held, handler in handlers.items():
            signal.signal(held, handler)
    for number in dict.fromkeys(came):
        signal.raise_signal(number)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let the first SIGTERM interrupt the block as Ctrl-C does, and take effect behind it.

    Who stops a process may send more than one, as `timeout` does: the others do not cut through
    what the block does in its end. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if came:
            signal.raise_signal(signal.SIGTERM)
