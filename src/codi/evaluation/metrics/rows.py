"""Rows of features, one for each sample, that may lie on disk: read so that any number fits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

CHUNK = 4096
"""Rows that are in memory at once."""


def chunks(length: int) -> Iterator[slice]:
    """Return slices of at most `CHUNK` rows that make up `length` of them."""
    return (slice(first, first + CHUNK) for first in range(0, length, CHUNK))


def require_finite(x: np.ndarray, what: str = "features") -> None:
    """Raise ValueError for numbers that are not finite: comparisons pass over them in silence."""
    if not np.isfinite(x).all():
        raise ValueError(f"{what} that are not finite; check the media and what made them")


def picked(rows: np.ndarray, indices: Sequence[int], folder: Path) -> np.ndarray:
    """Return the rows (k, ...) with the given numbers, copied to a nameless file in a folder.

    An index with gaps would read all of them into memory.
    """
    with tempfile.TemporaryFile(dir=folder) as file:  # it lasts as long as the array does
        found = np.memmap(file, rows.dtype, "w+", shape=(len(indices), *rows.shape[1:]))
    for some in chunks(len(indices)):
        found[some] = rows[list(indices[some])]
    return found


def by_chunks(of: Callable[..., np.ndarray], *rows: np.ndarray) -> np.ndarray:
    """Return what `of` says of each sample (n,), asked about a chunk of all `rows` at a time.

    Args:
        of: takes as many arrays as there are `rows`, and returns (k,) for k samples.
        rows: arrays (n, ...), row i of each belonging to sample i.
    """
    found = [of(*(x[some] for x in rows)) for some in chunks(len(rows[0]))]
    return np.concatenate(found) if found else np.zeros(0)
