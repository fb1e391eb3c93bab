"""Fréchet distances have closed forms, never turn complex, and come in any number of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn

from codi.evaluation.metrics.gaussians import (
    GaussianStatistics,
    frechet_distance,
    frechet_interval,
    gaussian_of,
)


def statistics(mean: np.ndarray, covariance: np.ndarray) -> GaussianStatistics:
    found = GaussianStatistics(len(mean))
    found.mean, found.scatter, found.weight = mean, covariance * 9.0, 10.0
    return found


def rows(n: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)) @ rng.standard_normal((width, width)) + 3.0


def test_two_gaussians_on_the_same_axes_have_a_closed_form() -> None:
    a = statistics(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 0.0]))
    b = statistics(np.array([1.0, 1.0, 0.0]), np.diag([9.0, 4.0, 0.25]))
    assert frechet_distance(a, b) == pytest.approx(1.0 + 4.0 + (1 - 3) ** 2 + 0.0 + 0.5**2)


def test_a_shift_alone_is_its_squared_length() -> None:
    x = rows(200, 5)
    shift = np.array([1.0, -2.0, 0.0, 0.5, 3.0])
    found = frechet_distance(gaussian_of(x), gaussian_of(x + shift))
    assert found == pytest.approx(shift @ shift)


def test_it_is_what_a_matrix_square_root_gives() -> None:
    x, y = rows(300, 16), rows(280, 16, seed=1)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b).real
    step = x.mean(0) - y.mean(0)
    wanted = step @ step + np.trace(a + b - 2.0 * root)
    assert frechet_distance(gaussian_of(x), gaussian_of(y)) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("n", [2, 10, 63])
def test_fewer_samples_than_features_are_safe(n: int) -> None:
    x, y = rows(n, 64), rows(n, 64, seed=1)
    assert frechet_distance(gaussian_of(x), gaussian_of(x)) == pytest.approx(0.0, abs=1e-6)
    there = frechet_distance(gaussian_of(x), gaussian_of(y))
    assert 0.0 < there == pytest.approx(frechet_distance(gaussian_of(y), gaussian_of(x)))


def test_features_without_any_variance_are_safe() -> None:
    still = gaussian_of(np.ones((5, 3)))
    assert frechet_distance(still, still) == 0.0
    assert frechet_distance(still, gaussian_of(np.zeros((5, 3)))) == pytest.approx(3.0)


def test_batches_of_any_size_and_merged_parts_are_the_whole() -> None:
    x = rows(100, 7) + 1e4  # far from zero, where sums of squares would lose digits
    whole = gaussian_of(x)
    parts = [GaussianStatistics(7), GaussianStatistics(7)]
    for i, batch in enumerate(np.split(x, [1, 40, 41, 90])):
        parts[i % 2].add(batch)
    parts[0].merge(parts[1])
    for found in (whole, parts[0]):
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-8)


def test_weights_count_rows_as_if_they_were_repeated() -> None:
    x = rows(5, 3)
    times = np.array([2, 0, 1, 3, 1])
    found, wanted = gaussian_of(x, times), gaussian_of(np.repeat(x, times, axis=0))
    np.testing.assert_allclose(found.covariance, wanted.covariance)
    assert found.weight == wanted.weight


def test_the_interval_holds_the_distance_and_narrows_with_samples() -> None:
    widths = []
    for n in (50, 800):
        x, y = rows(n, 4), rows(n, 4, seed=1)
        value = frechet_distance(gaussian_of(x), gaussian_of(y))
        low, high = frechet_interval(x, y, value) or (np.nan, np.nan)
        assert 0.0 <= low <= value <= high
        widths.append((high - low) / value)
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_its_interval_is_of_what_so_many_rows_have(shift: float) -> None:
    found = []
    rng = np.random.default_rng(0)
    for _ in range(120):
        x, y = rng.standard_normal((2, 200, 16))
        y += shift
        value = frechet_distance(gaussian_of(x), gaussian_of(y))
        found.append((value, frechet_interval(x, y, value) or (np.nan, np.nan)))
    expected, truth = np.mean([value for value, _ in found]), 16 * shift**2
    assert np.mean([low <= expected <= high for _, (low, high) in found]) >= 0.9
    assert np.mean([low <= truth <= high for _, (low, high) in found]) < 0.5


def test_equal_rows_have_no_interval() -> None:
    for value, other in ((0.0, 0.0), (0.1, 0.1), (0.1, 0.7), (0.0, 1e3 + 0.1)):
        a, b = np.full((40, 4), value), np.full((30, 4), other)
        distance = frechet_distance(gaussian_of(a), gaussian_of(b))
        assert distance == pytest.approx(4 * (value - other) ** 2)
        assert frechet_interval(a, b, distance) is None
    assert frechet_interval(np.full((40, 4), 0.1), rows(40, 4), 1.0) is not None


def test_what_cannot_be_compared_says_so() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        frechet_distance(gaussian_of(rows(1, 3)), gaussian_of(rows(5, 3)))
    with pytest.raises(ValueError, match="one extractor"):
        frechet_distance(gaussian_of(rows(5, 3)), gaussian_of(rows(5, 4)))
    with pytest.raises(ValueError, match="not finite"):
        GaussianStatistics(2).add(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match=r"expected \(n, 2\)"):
        GaussianStatistics(2).add(np.zeros((3, 4)))


class Flat(nn.Module):
    """A given feature network, as torchmetrics takes it."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1)[:, : self.num_features]


@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    reference = fid.FrechetInceptionDistance(feature=Flat(), normalize=True).set_dtype(
        torch.float64
    )
    x, y = torch.rand(64, 3, 2, 2), torch.rand(80, 3, 2, 2) ** 2
    reference.update(x, real=True)
    reference.update(y, real=False)
    own = frechet_distance(gaussian_of(Flat()(x).numpy()), gaussian_of(Flat()(y).numpy()))
    assert own == pytest.approx(float(reference.compute()), abs=1e-4)
