"""Cosines, clips against their text, and retrieval from perfect to blind."""

from __future__ import annotations

import numpy as np
import pytest

from codi.evaluation.metrics.embeddings import (
    chance_within,
    clipsim,
    cosines,
    found_within,
    retrieval,
)


def rows(n: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width))


def test_cosines_ignore_length_and_know_opposites() -> None:
    x = rows(5)
    np.testing.assert_allclose(cosines(x, 3.0 * x), 1.0)
    np.testing.assert_allclose(cosines(x, -x), -1.0)
    np.testing.assert_allclose(cosines(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])), 0.5**0.5)
    np.testing.assert_allclose(cosines(np.zeros((1, 2)), np.ones((1, 2))), 0.0)
    with pytest.raises(ValueError, match="pair them"):
        cosines(x, x[:3])


def test_clipsim_is_the_mean_over_frames() -> None:
    text, frames = rows(3), rows(12, seed=1).reshape(3, 4, 8)
    by_frame = np.stack([cosines(text, frames[:, i]) for i in range(4)])
    np.testing.assert_allclose(clipsim(text, frames), by_frame.mean(0))


def test_retrieval_from_perfect_to_blind() -> None:
    x = rows(20)
    assert [r.value for r in retrieval(x, x)] == [1.0, 1.0, 1.0]
    blind = retrieval(np.ones((20, 3)), np.ones((20, 3)))
    assert [r.value for r in blind] == pytest.approx([r.chance for r in blind])
    assert [r.chance for r in blind] == pytest.approx([0.05, 0.25, 0.5])
    assert retrieval(x, np.roll(x, 1, axis=0))[0].value == 0.0
    assert all(r.ci95[0] <= r.value <= r.ci95[1] for r in retrieval(x, x + rows(20, seed=2)))


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    broken = rows(5)
    broken[2, 1] = np.nan
    for pair in ((broken, rows(5)), (rows(5), broken)):
        with pytest.raises(ValueError, match="embeddings that are not finite"):
            retrieval(*pair)


def test_unrelated_embeddings_are_found_by_chance() -> None:
    found = retrieval(rows(400), rows(400, seed=1))
    assert found[2].value == pytest.approx(found[2].chance, abs=0.02)


def test_more_is_within_ten_than_there_are() -> None:
    assert [(r.value, r.chance) for r in retrieval(rows(3), rows(3, seed=1))][2] == (1.0, 1.0)


def test_any_right_target_counts_and_chance_counts_them() -> None:
    x = rows(12)
    alike = np.arange(12)[:, None] % 3 == np.arange(12)[None] % 3
    assert chance_within(alike, (1, 12)) == pytest.approx([4 / 12, 1.0])
    blind = found_within(np.ones((12, 3)), np.ones((12, 3)), (1, 5), alike)
    assert blind.mean(1) == pytest.approx(chance_within(alike, (1, 5)))
    shifted = np.roll(x, 3, axis=0)  # the nearest is another item, of the same kind
    assert found_within(x, shifted, (1,), alike).mean() == 1.0
    assert found_within(x, shifted, (1,)).mean() == 0.0
