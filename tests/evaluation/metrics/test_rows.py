"""Rows on disk stay there: picked ones, and those that FID and KID are of."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from codi.evaluation.metrics.gaussians import (
    GaussianStatistics,
    frechet_distance,
    frechet_interval,
    gaussian_of,
)
from codi.evaluation.metrics.kernels import kernel_distance
from codi.evaluation.metrics.rows import chunks, picked, require_finite

N, WIDTH = 50_000, 64


@contextmanager
def at_most(most: float) -> Iterator[None]:
    """Fail where more bytes are allocated at once; pages of mapped files do not count."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / 1e6:.1f} MB"


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of 50,000 rows on disk: 13 MB each, and 26 in double precision."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    for name, shift in (("made", 0.2), ("true", 0.0)):
        written = np.memmap(folder / name, "<f4", "w+", shape=(N, WIDTH))
        written[:] = rng.standard_normal((N, WIDTH), dtype=np.float32) + np.float32(shift)
        written.flush()
    made, true = (
        np.memmap(folder / name, "<f4", "r", shape=(N, WIDTH)) for name in ("made", "true")
    )
    return made, true


def test_fid_of_rows_on_disk_is_that_of_rows_in_memory(
    held: tuple[np.ndarray, np.ndarray],
) -> None:
    with at_most(8e6):
        found = [gaussian_of(rows) for rows in held]
        value = frechet_distance(*found)
        ends = frechet_interval(*held, value, resamples=3)
        batches = GaussianStatistics(WIDTH)
        for first in range(0, N, 777):
            batches.add(held[0][first : first + 777])
    whole = [np.array(rows, dtype=np.float64) for rows in held]
    for own, rows in zip(found, whole, strict=True):
        np.testing.assert_allclose(own.mean, rows.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(own.covariance, np.cov(rows, rowvar=False), atol=1e-12)
    np.testing.assert_allclose(batches.covariance, found[0].covariance, atol=1e-12)
    a, b = (GaussianStatistics(WIDTH) for _ in whole)
    a.add(whole[0])
    b.add(whole[1])
    assert value == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert value == pytest.approx(WIDTH * 0.2**2, abs=0.1)
    assert ends is not None
    assert ends[0] < value < ends[1]


def test_kid_of_rows_on_disk_is_that_of_rows_in_memory(
    held: tuple[np.ndarray, np.ndarray],
) -> None:
    with at_most(8e6):
        found = kernel_distance(*held, subsets=10, size=400)
    made, true = (np.array(rows) for rows in held)
    assert found == kernel_distance(made, true, subsets=10, size=400)
    assert found.value > 0.0


def test_rows_are_picked_without_being_read_whole(
    held: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    rows, indices = held[0], tuple(i for i in range(N) if i != 7)
    with at_most(8e6):
        found = picked(rows, indices, tmp_path)
        for some in chunks(len(found)):
            require_finite(found[some])
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, rows[list(indices)])
    assert list(tmp_path.iterdir()) == []
    frames = np.arange(24.0, dtype="<f4").reshape(4, 3, 2)
    np.testing.assert_array_equal(picked(frames, (0, 3), tmp_path), frames[[0, 3]])
