"""The samplers against data whose denoiser and probability flow are known in closed form.

For z_0 ~ N(mean, spread^2 I) the latent at step t is N(alpha mean, alpha^2 spread^2 + sigma^2), the
best guess of z_0 is linear in it, and the probability flow only shifts and scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from codi.diffusion import (
    SAMPLERS,
    TAKES_ETA,
    Noise,
    NoiseSchedule,
    NoiseSource,
    ProductSpace,
    evaluations,
)

SCHEDULE = NoiseSchedule.build()
DETERMINISTIC = ["ddim", "euler", "heun", "dpmpp_2m", "unipc"]


@dataclass
class Gaussian:
    """Data N(mean, spread^2), its exact denoiser, and a count of how often that was asked."""

    mean: float
    spread: float
    schedule: NoiseSchedule = SCHEDULE
    calls: int = 0

    def deviation(self, t: int) -> float:
        alpha, sigma = self.schedule.level(t)
        return math.hypot(alpha * self.spread, sigma)

    def __call__(self, z: Tensor, t: int) -> Tensor:
        self.calls += 1
        alpha, _ = self.schedule.level(t)
        gain = alpha * self.spread**2 / self.deviation(t) ** 2
        return self.mean + gain * (z - alpha * self.mean)

    def flow(self, z: Tensor, t: int, s: int) -> Tensor:
        """Carry z from t to s along the probability flow (Song et al. 2021b, Eq. 13)."""
        centre_t, centre_s = (self.schedule.level(step)[0] * self.mean for step in (t, s))
        return centre_s + self.deviation(s) / self.deviation(t) * (z - centre_t)


def start(size: int = 64, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, size, generator=generator, dtype=torch.float64).to(dtype)


def draw_for(size: int) -> NoiseSource:
    return NoiseSource(Noise([0, 1]), ProductSpace({"a": (size,)}))


@pytest.mark.parametrize("spread", [0.3, 2.0])
@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3)]
)
def test_deterministic_samplers_converge_to_the_flow_with_their_order(
    name: str, order: int, spread: float
) -> None:
    # A fine schedule, so that halved moves are still whole steps.
    schedule = NoiseSchedule.build(steps=8000, beta_start=0.00085 / 8, beta_end=0.0120 / 8)
    gaussian = Gaussian(mean=0.7, spread=spread, schedule=schedule)
    z = start()
    errors = []
    for stride in (200, 100, 50):
        timesteps = list(range(4800, 1599, -stride))
        found = SAMPLERS[name](gaussian, z, timesteps, schedule)
        errors.append(float((found - gaussian.flow(z, 4800, 1600)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_end_in_the_data(
    name: str, spacing: str, zero_terminal_snr: bool
) -> None:
    schedule = NoiseSchedule.build(zero_terminal_snr=zero_terminal_snr)
    gaussian = Gaussian(mean=-0.4, spread=0.8, schedule=schedule)
    z = start(dtype=torch.float32)
    found = SAMPLERS[name](gaussian, z, schedule.timesteps(200, spacing), schedule)
    assert found.dtype == torch.float32
    expected = gaussian.flow(z, schedule.T, 0)
    assert float((found - expected).abs().max()) < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_data_that_is_one_point_is_reached_exactly(name: str) -> None:
    point = torch.linspace(-2, 2, 8).expand(2, 8)
    found = SAMPLERS[name](
        lambda z, t: point, start(8), SCHEDULE.timesteps(5), SCHEDULE, noise=draw_for(8)
    )
    torch.testing.assert_close(found, point.double())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations_are_known_in_advance(name: str, steps: int) -> None:
    gaussian = Gaussian(mean=0.0, spread=1.0)
    SAMPLERS[name](gaussian, start(), SCHEDULE.timesteps(steps), SCHEDULE, noise=draw_for(64))
    assert gaussian.calls == evaluations(name, steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_costs_heun_one_evaluation_less(name: str) -> None:
    schedule = NoiseSchedule.build(zero_terminal_snr=True)
    gaussian = Gaussian(mean=0.0, spread=1.0, schedule=schedule)
    SAMPLERS[name](gaussian, start(), schedule.timesteps(5), schedule, noise=draw_for(64))
    assert gaussian.calls == evaluations(name, 5) - (name == "heun")


@pytest.mark.parametrize("name", sorted(TAKES_ETA))
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fresh_noise_keeps_the_distribution(name: str, eta: float) -> None:
    gaussian = Gaussian(mean=0.7, spread=0.5)
    size = 20_000
    timesteps = SCHEDULE.timesteps(250)
    alpha, _ = SCHEDULE.level(1000)
    z = alpha * gaussian.mean + gaussian.deviation(1000) * start(size)
    found = SAMPLERS[name](gaussian, z, timesteps, SCHEDULE, eta=eta, noise=draw_for(size))
    assert float(found.mean()) == pytest.approx(gaussian.mean, abs=0.02)
    assert float(found.std()) == pytest.approx(gaussian.spread, rel=0.03)


def test_an_ancestral_move_has_the_posterior_of_ddpm() -> None:
    """One move against mean and variance of q(z_s | z_t, z_0), Ho et al. 2020, Eq. 6 and 7."""
    t, s, size = 600, 599, 200_000
    before, after = (float(SCHEDULE.alpha_bar[step]) for step in (s, t))
    beta = 1 - after / before
    mean = (math.sqrt(before) * beta * 0.3 + math.sqrt(1 - beta) * (1 - before) * 1.5) / (1 - after)
    z = torch.full((1, size), 1.5, dtype=torch.float64)
    source = NoiseSource(Noise([5]), ProductSpace({"a": (size,)}))
    found = SAMPLERS["ddpm"](
        lambda z, t: torch.full_like(z, 0.3), z, [t, s], SCHEDULE, noise=source
    )
    variance = (1 - before) / (1 - after) * beta
    assert float(found.mean()) == pytest.approx(mean, abs=1e-3)
    assert float(found.var()) == pytest.approx(variance, rel=0.02)


def test_ddpm_is_ddim_with_eta_one_and_euler_with_eta_zero() -> None:
    gaussian, z, timesteps = Gaussian(0.1, 0.5), start(), SCHEDULE.timesteps(10)
    source = draw_for(64)
    ancestral = SAMPLERS["ddpm"](gaussian, z, timesteps, SCHEDULE, noise=source)
    same = SAMPLERS["ddim"](gaussian, z, timesteps, SCHEDULE, eta=1.0, noise=source)
    assert torch.equal(ancestral, same)
    euler = SAMPLERS["euler"](gaussian, z, timesteps, SCHEDULE)
    torch.testing.assert_close(SAMPLERS["ddim"](gaussian, z, timesteps, SCHEDULE), euler)


def test_the_first_move_of_dpmpp_with_fresh_noise_is_ancestral() -> None:
    gaussian, z, source = Gaussian(0.1, 0.5), start(), draw_for(64)
    moved = SAMPLERS["dpmpp_2m"](gaussian, z, [700, 650], SCHEDULE, eta=1.0, noise=source)
    ancestral = SAMPLERS["ddpm"](gaussian, z, [700, 650], SCHEDULE, noise=source)
    torch.testing.assert_close(moved, ancestral)


def test_fresh_noise_in_dpmpp_mends_nothing_that_was_exact() -> None:
    """From alpha = 0 and to t = 0 too, a denoiser that knows the data ends at the data."""
    schedule = NoiseSchedule.build(zero_terminal_snr=True)
    z = start()
    found = SAMPLERS["dpmpp_2m"](
        lambda z, t: torch.full_like(z, 0.3),
        z,
        schedule.timesteps(7),
        schedule,
        eta=1.0,
        noise=draw_for(64),
    )
    torch.testing.assert_close(found, torch.full_like(z, 0.3))


def test_ddim_move_is_equation_12() -> None:
    z, z0 = start(), 0.3 * start().flip(1)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE.level(700), SCHEDULE.level(650)
    epsilon = (z - alpha_t * z0) / sigma_t
    found = SAMPLERS["ddim"](lambda z, t: z0, z, [700, 650], SCHEDULE)
    torch.testing.assert_close(found, alpha_s * z0 + sigma_s * epsilon)


@pytest.mark.parametrize("name", SAMPLERS)
def test_streams_of_one_vector_do_not_mix_and_samples_do_not_either(name: str) -> None:
    gaussian, timesteps = Gaussian(0.2, 0.5), SCHEDULE.timesteps(6)
    both = ProductSpace({"a": (3,), "b": (4,)})
    only = ProductSpace({"a": (3,)})

    def run(seeds: list[int], space: ProductSpace) -> Tensor:
        source = NoiseSource(Noise(seeds), space)
        z = SAMPLERS[name](gaussian, source(0), timesteps, SCHEDULE, noise=source)
        return space.unpack(z)["a"]

    joint = run([1, 2], both)
    torch.testing.assert_close(joint, run([1, 2], only))
    torch.testing.assert_close(joint[1:], run([2], both))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_sees_every_move_and_may_start_anywhere(name: str) -> None:
    seen: list[tuple[int, int, int]] = []
    last: list[Tensor] = []

    def watch(index: int, count: int, t: int, z: Tensor, z0: Tensor) -> None:
        assert z.shape == z0.shape
        seen.append((index, count, t))
        last.append(z)

    found = SAMPLERS[name](
        Gaussian(0.0, 1.0), start(), [500, 300, 20], SCHEDULE, noise=draw_for(64), callback=watch
    )
    assert seen == [(0, 2, 300), (1, 2, 20)]
    assert torch.equal(last[-1], found)


@pytest.mark.parametrize("name", SAMPLERS)
def test_half_precision_is_widened(name: str) -> None:
    z = start(dtype=torch.bfloat16)
    found = SAMPLERS[name](
        lambda z, t: z.bfloat16(), z, [1000, 500, 0], SCHEDULE, noise=draw_for(64)
    )
    assert found.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_gradients_pass_through(name: str) -> None:
    z = start().requires_grad_()
    found = SAMPLERS[name](
        Gaussian(0.0, 0.5), z, SCHEDULE.timesteps(4), SCHEDULE, noise=draw_for(64)
    )
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("timesteps", [[], [10], [0, 10], [10, 10, 0], [2000, 0], [10, -1]])
def test_bad_steps_are_refused_before_any_work(name: str, timesteps: list[int]) -> None:
    gaussian = Gaussian(0.0, 1.0)
    with pytest.raises(ValueError, match=r"timesteps|0\.\.1000"):
        SAMPLERS[name](gaussian, start(), timesteps, SCHEDULE, noise=draw_for(64))
    assert gaussian.calls == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_denoiser_that_changes_the_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="keep the shape"):
        SAMPLERS[name](lambda z, t: z[:, :1], start(), [10, 0], SCHEDULE, noise=draw_for(64))


@pytest.mark.parametrize(
    ("name", "eta"), [("euler", 0.5), ("heun", 1.0), ("unipc", 1.0), ("ddpm", 0.0)]
)
def test_an_eta_that_a_sampler_does_not_have_is_refused(name: str, eta: float) -> None:
    with pytest.raises(ValueError, match="leave eta out, or use ddim or dpmpp_2m"):
        SAMPLERS[name](Gaussian(0.0, 1.0), start(), [10, 0], SCHEDULE, eta=eta)


def test_a_bad_eta_or_missing_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="choose 0"):
        SAMPLERS["ddim"](Gaussian(0.0, 1.0), start(), [10, 0], SCHEDULE, eta=1.5)
    with pytest.raises(ValueError, match="set eta to 0"):
        SAMPLERS["dpmpp_2m"](Gaussian(0.0, 1.0), start(), [10, 0], SCHEDULE, eta=0.3)
    with pytest.raises(ValueError, match="give noise="):
        SAMPLERS["ddpm"](Gaussian(0.0, 1.0), start(), [10, 0], SCHEDULE)
    with pytest.raises(ValueError, match="dpmpp_2m"):
        evaluations("plms", 10)
