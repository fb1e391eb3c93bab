"""How training is told to stop: between steps, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C wait for the end of the step, so that a checkpoint is of a whole step.

    So does a SIGTERM, which clusters send before they take a machine away. A second signal
    interrupts at once. Outside the main thread nothing changes.
    """
    pressed = False

    def press(_signal: int, _frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, press) for number in _STOPPING}
    try:
        yield lambda: pressed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
