"""Checks of sampling: the goldens of noise schedules, and of DDIM with guidance and mixed prompts.

The released code counts steps from 0; here the lowest noise level is t = 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from codi.config import ConfigError
from codi.convert.check_unets import (
    as_ours,
    diffuser_config,
    filled_diffuser,
    mixed,
    nearest,
    skips_of,
    stated_config,
)
from codi.convert.golden import Check, Golden
from codi.convert.unets import SCHEDULE_BUFFERS, schedule_buffers
from codi.diffusion import PREDICTIONS, SAMPLERS, GuidanceRule, NoiseSchedule, ProductSpace

# --- the schedule -------------------------------------------------------------------------------

_KINDS = {
    "linear": "scaled_linear",
    "scaled_linear": "scaled_linear",
    "sqrt_linear": "linear",
    "cosine": "cosine",
}
"""Latent diffusion's beta_schedule -> our kind of schedule. Its "linear" is linear in the root."""

_NUMBER = r"(?P<root_{0}>sqrt\()?(?P<{0}>[-+.e\d]+)\)?(?P<power_{0}>\*\*0?\.5)?"
_LINSPACE = re.compile(
    rf"linspace\({_NUMBER.format('start')},{_NUMBER.format('end')},(?P<steps>\d+)"
)
"""How goldens write betas: "torch.linspace(sqrt(.00085),sqrt(.012),1000,float64)**2", without the
names of libraries; a root may be a power too."""


def stated_schedule(golden: Golden) -> NoiseSchedule:
    """Return the noise schedule that a golden states, the released code's where it states none.

    The formula under `betas` is taken before the words of latent diffusion's configuration
    (beta_schedule, linear_start, linear_end, timesteps), which may stand in `config` as well.

    Raises:
        ConfigError: a kind of schedule that is not known here.
    """
    about = golden.about
    config = about.get("config")
    told = {**(config if isinstance(config, dict) else {}), **about}
    lengths = [len(golden.expected(name)) for name in SCHEDULE_BUFFERS if golden.has(name)]
    steps = told.get("timesteps", lengths[0] if lengths else 1000)
    formula = re.sub(r"\s|math\.|np\.|torch\.", "", str(about.get("betas", "")))
    found = _LINSPACE.search(formula)
    if found is not None:
        in_root = found["root_start"] or found["power_start"]
        kind = "scaled_linear" if in_root else "linear"
        ends = float(found["start"]), float(found["end"])
        return NoiseSchedule.build(kind, int(found["steps"]), *ends)
    said = told.get("beta_schedule", "linear")
    if said not in _KINDS:
        known = ", ".join(_KINDS)
        raise ConfigError(f"{golden.path}: beta_schedule = {said!r}; known here: {known}")
    told = {key.removeprefix("beta_"): value for key, value in told.items()}  # as its yaml says
    ends = told.get("linear_start", 0.00085), told.get("linear_end", 0.0120)
    return NoiseSchedule.build(_KINDS[said], steps, *ends)


def released_timesteps(schedule: NoiseSchedule, count: int) -> list[int]:
    """Return the steps of the released sampler when asked for `count`, decreasing, and its end.

    They are range(0, T, T // count) + 1 of its own, which counts from 0: more than `count` where
    that does not divide T. The last move ends at its step 0, the lowest noise level.
    `NoiseSchedule.timesteps` leaves the surplus out.
    """
    return [*(t + 2 for t in reversed(range(0, schedule.T, schedule.T // count))), 1]


def _ddim_parameters(schedule: NoiseSchedule, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what the released sampler keeps of its steps, in ascending order."""
    ascending = torch.tensor(released_timesteps(schedule, about["steps"])[::-1])
    level, before = schedule.alpha_bar[ascending[1:]], schedule.alpha_bar[ascending[:-1]]
    variance = (1 - before) / (1 - level) * (1 - level / before)
    return {
        "ddim_timesteps": ascending[1:] - 1,
        "ddim_alphas": level.float(),
        "ddim_alphas_prev": before,
        "ddim_sigmas": about.get("eta", 0.0) * variance.sqrt(),
        "ddim_sqrt_one_minus_alphas": (1 - level).sqrt(),
    }


def _loss_buffers(schedule: NoiseSchedule) -> dict[str, Tensor]:
    """Return what the released code computes of a schedule besides, and stores in no file.

    The weights of the variational bound are those of a prediction of the noise; they do not exist
    at the first step, which takes the second's.
    """
    buffers = schedule_buffers(schedule)
    betas, level = buffers["betas"], buffers["alphas_cumprod"]
    weights = betas.square() / (2 * buffers["posterior_variance"] * (1 - betas) * (1 - level))
    weights[0] = weights[1]
    return {"alphas": 1 - betas, "logvar": torch.zeros_like(betas), "lvlb_weights": weights}


def _run_schedule(golden: Golden) -> dict[str, Tensor]:
    """Compute the buffers of a schedule, and the parameters of DDIM where the steps are told."""
    schedule = stated_schedule(golden)
    made = schedule_buffers(schedule) | _loss_buffers(schedule)
    if "steps" in golden.about:
        made |= _ddim_parameters(schedule, golden.about)
    return {name: value for name, value in made.items() if name in golden.tensors}


# --- sampling -----------------------------------------------------------------------------------


def _run_sampling(golden: Golden) -> dict[str, Tensor]:
    """Sample in each wiring of the skips that an output may have been made in."""
    sampled = cache(lambda skips: _sampled(golden, skips))
    made = {name: x for name, x in sampled("aliased").items() if name in golden.tensors}
    for name in [name for name in made if name.startswith("out_")]:
        found = [sampled(skips)[name] for skips in skips_of(name)]
        made[name] = nearest(golden.expected(name), found)
    return made


@torch.no_grad()
def _sampled(golden: Golden, skips: str) -> dict[str, Tensor]:
    """Sample with DDIM and guidance from a mixture of prompts, as the released code does."""
    about, start = golden.about, golden["x_T"]
    schedule = stated_schedule(golden)
    config = diffuser_config(stated_config(about["config"], start, about.get("cls")), skips)
    diffuser = filled_diffuser(golden, config, golden.weights())
    space = ProductSpace({"z": tuple(as_ours(start).shape[1:])})
    rule, prediction = GuidanceRule(about["scale"]), PREDICTIONS["epsilon"]
    cond = mixed(golden, "cond")
    counts = about["scale"] != 1.0 or any(name.startswith("uncond") for name in golden.tensors)
    uncond = mixed(golden, "uncond") if counts else cond

    def denoise(z: Tensor, t: int) -> Tensor:
        z_t = space.unpack(z)["z"]
        now = torch.full((len(z),), t)
        both = torch.cat([cond, uncond])
        guided, unguided = diffuser(torch.cat([z_t, z_t]), now.repeat(2), both).chunk(2)
        epsilon = rule.apply(guided, unguided, t)
        alpha, sigma = schedule.alpha(now, z_t.ndim), schedule.sigma(now, z_t.ndim)
        return space.pack({"z": prediction.recover(epsilon, z_t, alpha, sigma)[0]})

    trajectory: list[tuple[Tensor, Tensor]] = []
    final = SAMPLERS["ddim"](
        denoise,
        space.pack({"z": as_ours(start)}),
        released_timesteps(schedule, about["steps"]),
        schedule,
        eta=about.get("eta", 0.0),
        noise=_noise(golden, space),
        callback=lambda _i, _n, _t, z, z0: trajectory.append((z, z0)),
    )
    along, clean = (torch.stack(kind) for kind in zip(*trajectory, strict=True))
    made = schedule_buffers(schedule) | _ddim_parameters(schedule, about)
    made |= {
        "out_traj": along.reshape(-1, *start.shape),
        "out_pred_x0": clean.reshape(-1, *start.shape),
        "out_final": final.reshape(start.shape),
    }
    return made


def _noise(golden: Golden, space: ProductSpace) -> Callable[[int], Tensor] | None:
    """Return the fresh noise that a golden keeps of each move, `noise` (moves, B, ...), if any.

    Raises:
        ConfigError: it keeps none, and its eta asks for some.
    """
    if not golden.has("noise"):
        if golden.about.get("eta", 0.0):
            raise ConfigError(
                f"{golden.path}: eta = {golden.about['eta']} and no tensor 'noise'; add what was "
                "drawn in each move, (moves, B, ...)"
            )
        return None
    noise = golden["noise"]
    return lambda draw: space.pack({"z": as_ours(noise[draw - 1])})


# --- the list -----------------------------------------------------------------------------------


def _lists(about: Mapping[str, Any], *starts: str) -> bool:
    """Say whether a JSON lists, for each of `starts`, a tensor whose name begins so."""
    names = [str(name) for name in about.get("tensors", ())]
    return all(any(name.startswith(start) for name in names) for start in starts)


def _is_schedule(about: Mapping[str, Any]) -> bool:
    return any(_lists(about, name) for name in (*SCHEDULE_BUFFERS, "ddim_"))


CHECKS: tuple[Check, ...] = (
    Check(lambda about: _lists(about, "x_T", "cond"), _run_sampling, tolerance=1e-3),
    Check(lambda about: _is_schedule(about) and not _lists(about, "x_T"), _run_schedule),
)
"""How the goldens of schedules and of sampling are recognised and run."""
