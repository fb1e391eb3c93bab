"""Rows of features, one for each sample, that may lie on disk: read so that any number fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

CHUNK = 4096
"""Rows that are in memory at once."""


def chunks(length: int) -> Iterator[slice]:
    """Return slices of at most `CHUNK` rows that make up `length` of them."""
    return (slice(first, first + CHUNK) for first in range(0, length, CHUNK))


def by_chunks(of: Callable[..., np.ndarray], *rows: np.ndarray) -> np.ndarray:
    """Return what `of` says of each sample (n,), asked about a chunk of all `rows` at a time.

    Args:
        of: takes as many arrays as there are `rows`, and returns (k,) for k samples.
        rows: arrays (n, ...), row i of each belonging to sample i.
    """
    found = [of(*(x[some] for x in rows)) for some in chunks(len(rows[0]))]
    return np.concatenate(found) if found else np.zeros(0)
