"""Laws of the parameterisations and of the loss weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.diffusion import LOSS_WEIGHTS, PREDICTIONS

names = st.sampled_from(list(PREDICTIONS))
angles = st.floats(0.05, math.pi / 2 - 0.05)


def level(angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma (2, 1) in float64 on the unit circle."""
    alpha = torch.full((2, 1), math.cos(angle), dtype=torch.float64)
    return alpha, torch.full((2, 1), math.sin(angle), dtype=torch.float64)


def normal(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, dtype=torch.float64, generator=generator)


@given(name=names, angle=angles, seed=st.integers(0, 2**31))
def test_a_perfect_prediction_gives_back_data_and_noise(name: str, angle: float, seed: int) -> None:
    z0, noise = normal(seed), normal(seed + 1)
    alpha, sigma = level(angle)
    row = PREDICTIONS[name]
    output = row.target(z0, noise, alpha, sigma)
    found = row.recover(output, alpha * z0 + sigma * noise, alpha, sigma)
    torch.testing.assert_close(found, (z0, noise))


@given(name=names, angle=angles, seed=st.integers(0, 2**31))
def test_any_output_is_the_target_of_what_is_recovered_from_it(
    name: str, angle: float, seed: int
) -> None:
    output, z_t = normal(seed), normal(seed + 1)
    alpha, sigma = level(angle)
    row = PREDICTIONS[name]
    z0, epsilon = row.recover(output, z_t, alpha, sigma)
    torch.testing.assert_close(row.target(z0, epsilon, alpha, sigma), output)
    torch.testing.assert_close(alpha * z0 + sigma * epsilon, z_t)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_both_ends_are_finite_and_consistent(name: str, ends: tuple[float, float]) -> None:
    alpha, sigma = (torch.full((2, 1), end) for end in ends)
    output = torch.randn(2, 5, requires_grad=True)
    z_t = torch.randn(2, 5)
    z0, epsilon = PREDICTIONS[name].recover(output, z_t, alpha, sigma)
    assert z0.isfinite().all()
    assert epsilon.isfinite().all()
    assert torch.equal(alpha * z0 + sigma * epsilon, z_t)
    (gradient,) = torch.autograd.grad((z0 + epsilon).sum(), output)
    assert gradient.isfinite().all()


def test_velocity_is_the_derivative_of_the_latent_by_the_angle() -> None:
    z0, noise = normal(0), normal(1)
    angle, step = 0.7, 1e-6
    ahead, behind = (
        (alpha * z0 + sigma * noise) for alpha, sigma in (level(angle + step), level(angle - step))
    )
    velocity = PREDICTIONS["velocity"].target(z0, noise, *level(angle))
    torch.testing.assert_close((ahead - behind) / (2 * step), velocity, atol=1e-8, rtol=1e-6)


@given(angle=angles, seed=st.integers(0, 2**31))
def test_min_snr_weighs_the_same_error_alike_in_every_parameterisation(
    angle: float, seed: int
) -> None:
    z_t, first, second = normal(seed), normal(seed + 1), normal(seed + 2)
    alpha, sigma = level(angle)
    snr = (alpha / sigma).square()
    losses = []
    for name, row in PREDICTIONS.items():
        # Two guesses of the data at one z_t, said in the words of the parameterisation.
        outputs = [
            row.target(z0, (z_t - alpha * z0) / sigma, alpha, sigma) for z0 in (first, second)
        ]
        error = (outputs[0] - outputs[1]).square()
        losses.append(LOSS_WEIGHTS["min_snr"](snr, name) * error)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("weight", LOSS_WEIGHTS)
def test_weights_are_finite_at_both_ends(name: str, weight: str) -> None:
    snr = torch.tensor([0.0, 1e-9, 1.0, 5.0, 1e9, torch.inf])
    weights = LOSS_WEIGHTS[weight](snr, name, 5.0)
    assert weights.shape == snr.shape
    assert (weights.isfinite() & (weights >= 0)).all()


def test_uniform_weights_are_one() -> None:
    assert torch.equal(LOSS_WEIGHTS["uniform"](torch.rand(4), "velocity"), torch.ones(4))
