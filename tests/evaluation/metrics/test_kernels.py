"""KID is unbiased, reads subsets only, and agrees with its published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codi.evaluation.metrics.kernels import cubic_kernel, kernel_distance, squared_mmd


def rows(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 6)) + shift


def test_the_estimate_is_the_sum_over_pairs_of_different_rows() -> None:
    x, y = rows(4, 0), rows(3, 1)
    k = cubic_kernel
    within = [np.mean([k(a, a)[i, j] for i in range(len(a)) for j in range(len(a)) if i != j])
              for a in (x, y)]  # fmt: skip
    assert squared_mmd(x, y) == pytest.approx(sum(within) - 2.0 * k(x, y).mean())


def test_equal_distributions_give_nothing_on_average() -> None:
    found = [squared_mmd(rows(20, 2 * i), rows(20, 2 * i + 1)) for i in range(300)]
    assert abs(np.mean(found)) < 3.0 * np.std(found) / len(found) ** 0.5
    assert min(found) < 0.0


def test_a_shift_is_seen_with_an_interval() -> None:
    found = kernel_distance(rows(300, 0), rows(300, 1, shift=1.0), subsets=20, size=100)
    assert found.ci95 is not None
    assert found.ci95[0] > 0.1
    assert found.ci95[0] < found.value < found.ci95[1]
    with pytest.raises(ValueError, match="one extractor"):
        kernel_distance(rows(3, 0), rows(3, 0)[:, :2])
    with pytest.raises(ValueError, match="at least 2"):
        squared_mmd(rows(1, 0), rows(3, 0))


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.0), (0.3, 0.99), (1.0, 0.99)])
def test_the_interval_holds_the_truth(shift: float, most: float) -> None:
    # E (x·y / D + 1)³ of normal rows, about 0 and about `shift`, by their moments
    d, q = 6, 6 * shift**2
    cubes = q**3 + 6 * q**2 + 3 * q * d + 6 * q
    shifted = 1 + 3 * q / d + 3 * (d + 2 * q + q**2) / d**2 + cubes / d**3
    truth = (1 + 3 / d) + shifted - 2 * (1 + 3 * (d + q) / d**2)
    drawn = [
        kernel_distance(rows(60, 2 * i), rows(60, 2 * i + 1, shift), subsets=60) for i in range(200)
    ]
    held = [found.ci95[0] <= truth <= found.ci95[1] for found in drawn if found.ci95]
    assert len(held) == len(drawn)
    assert 0.9 <= np.mean(held) <= most
    assert np.mean([found.value for found in drawn]) == pytest.approx(truth, abs=0.05)


def test_embeddings_of_one_mean_are_told_apart_by_how_they_vary() -> None:
    """Of length 1 they have products that the cubic kernel alone would take for none."""
    x = np.random.default_rng(0).standard_normal((400, 64))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    axes = np.repeat(np.concatenate([np.eye(64)[:4], -np.eye(64)[:4]]), 25, axis=0)
    held, few = kernel_distance(x[:200], x[200:]), kernel_distance(axes, x[200:])
    assert held.value == pytest.approx(0.0, abs=0.05)
    assert few.value == pytest.approx(3 * (1 / 4 - 1 / 64), rel=0.1)  # of (cos + 1)³
    assert held.ci95 is not None
    assert held.ci95[0] < 0.0 < held.ci95[1]
    axes[7] = 0.0  # one that is damaged changes no other
    assert kernel_distance(axes, x[200:]).value == pytest.approx(few.value, rel=0.05)


def test_two_rows_have_no_interval() -> None:
    assert kernel_distance(rows(2, 0), rows(2, 1)).ci95 is None
    assert kernel_distance(rows(2, 0), rows(200, 1)).ci95 is None


def test_equal_rows_have_no_interval() -> None:
    for value in (0.0, 0.1, 1000.1):
        same = np.full((40, 6), value)
        found = kernel_distance(same, same, subsets=5)
        assert found.ci95 is None
        assert found.value == pytest.approx(0.0, abs=1e-9 * (value**2 + 1.0) ** 3)
    assert kernel_distance(np.full((40, 6), 0.1), rows(40, 0), subsets=5).ci95 is not None


def test_what_cannot_be_compared_says_so() -> None:
    with pytest.raises(ValueError, match="1 and 9 samples; give at least 2"):
        kernel_distance(rows(1, 0), rows(9, 1))
    broken = rows(9, 0)
    broken[3, 2] = np.nan
    for pair in ((broken, rows(9, 1)), (rows(9, 1), broken)):
        with pytest.raises(ValueError, match="features that are not finite"):
            kernel_distance(*pair)


class Flat(nn.Module):
    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1)


@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is not installed")
    reference = kid.KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=30)
    x, y = torch.rand(30, 3, 2, 2), torch.rand(30, 3, 2, 2) ** 2
    reference.update(x, real=True)
    reference.update(y, real=False)
    own = squared_mmd(x.flatten(1).double().numpy(), y.flatten(1).double().numpy())
    assert own == pytest.approx(float(reference.compute()[0]), abs=1e-4)
