"""How long work is shown as it goes on: whoever calls decides, nothing by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Progress = Callable[[str, int], Iterable[int]]
"""Wraps a range with a progress bar: (what, count) -> indices."""


def quiet(what: str, count: int) -> Iterable[int]:
    """Return the indices 0 ... count - 1, and show nothing."""
    del what
    return range(count)
