"""Our samplers against the schedulers of `diffusers`, on its steps and with a known predictor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from codi.diffusion import SAMPLERS, NoiseSchedule

diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")

pytestmark = pytest.mark.filterwarnings("ignore")

SCHEDULE = NoiseSchedule.build()
STEPS = 10
"""So many that every spacing has whole steps."""
SPACINGS = ("trailing", "leading", "linspace")


def _epsilon(z: Tensor, t: float) -> Tensor:
    """Predict the noise in z at the step `t` of 0..999, far from linearly in z."""
    return 0.8 * torch.tanh(z * (1 + t / 1000)) + 0.1 * torch.sin(3 * z)


def _denoise(z: Tensor, t: int) -> Tensor:
    alpha, sigma = SCHEDULE.level(t)
    return (z - sigma * _epsilon(z, t - 1.0)) / alpha


def _scheduler(kind: str, spacing: str, **settings: Any) -> Any:
    scheduler = getattr(diffusers, kind)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        steps_offset=1 if spacing == "leading" else 0,
        **settings,
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


def _theirs(scheduler: Any, z: Tensor) -> list[Tensor]:
    """Return the latents after every step of a scheduler that keeps alpha^2 + sigma^2 = 1."""
    along = []
    for t in scheduler.timesteps:
        z = scheduler.step(_epsilon(z, float(t)), t, z).prev_sample
        along.append(z)
    return along


def _theirs_in_sigma(scheduler: Any, z: Tensor) -> list[Tensor]:
    """Return the latents after every evaluation of a scheduler of z / alpha."""
    along = []
    z = z * (1 + scheduler.sigmas[0] ** 2) ** 0.5
    for index, t in enumerate(scheduler.timesteps):
        unit = scheduler.scale_model_input(z, t)
        z = scheduler.step(_epsilon(unit, float(t)), t, z).prev_sample
        along.append(z / (1 + scheduler.sigmas[index + 1] ** 2) ** 0.5)
    return along


def _ours(name: str, z: Tensor, steps: list[int]) -> list[Tensor]:
    along: list[Tensor] = []
    SAMPLERS[name](
        _denoise, z, steps, SCHEDULE, callback=lambda _i, _n, _t, z, _z0: along.append(z)
    )
    return along


def _start() -> Tensor:
    return torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(
        float((mine - other).abs().max()) < 1e-4 * float(other.std())
        for mine, other in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("dpmpp_2m", "DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}),
        ("unipc", "UniPCMultistepScheduler", {"final_sigmas_type": "zero", "solver_order": 2}),
    ],
)
def test_every_latent_is_the_schedulers(
    name: str, kind: str, settings: dict[str, Any], spacing: str
) -> None:
    scheduler = _scheduler(kind, spacing, **settings)
    steps = [int(t) + 1 for t in scheduler.timesteps] + [0]
    assert _same(_ours(name, _start(), steps), _theirs(scheduler, _start()))


@pytest.mark.parametrize("spacing", ["trailing", "leading"])  # it moves by 1000 // steps
def test_every_latent_of_ddim_is_the_schedulers(spacing: str) -> None:
    scheduler = _scheduler("DDIMScheduler", spacing, clip_sample=False, set_alpha_to_one=True)
    steps = [int(t) + 1 for t in scheduler.timesteps] + [0]
    assert _same(_ours("ddim", _start(), steps), _theirs(scheduler, _start()))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_latent_of_euler_is_the_schedulers(spacing: str) -> None:
    scheduler = _scheduler("EulerDiscreteScheduler", spacing)
    steps = [int(t) + 1 for t in scheduler.timesteps] + [0]
    assert _same(_ours("euler", _start(), steps), _theirs_in_sigma(scheduler, _start()))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_latent_of_heun_is_the_schedulers(spacing: str) -> None:
    scheduler = _scheduler("HeunDiscreteScheduler", spacing)
    steps = [*dict.fromkeys(int(t) + 1 for t in scheduler.timesteps), 0]
    along = _theirs_in_sigma(scheduler, _start())
    corrected = [*along[1::2], along[-1]]  # two evaluations a move, but for the last
    assert _same(_ours("heun", _start(), steps), corrected)
