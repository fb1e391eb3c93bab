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
    in_its_wirings,
    is_joint,
    is_sampling,
    joint_model,
    mixed,
    stated_config,
    stream_of,
)
from codi.convert.golden import Check, Golden
from codi.convert.unets import SCHEDULE_BUFFERS, schedule_buffers
from codi.diffusion import PREDICTIONS, SAMPLERS, GuidanceRule, NoiseSchedule, ProductSpace
from codi.model import CoDi

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
    buffers = [name for name in golden.tensors if name.removeprefix(_OUT) in SCHEDULE_BUFFERS]
    lengths = [len(golden.expected(name)) for name in buffers]
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


_OUT = "out_"


def _kept(golden: Golden, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a golden keeps of what follows from a schedule, called an output or not."""
    names = {name: name.removeprefix(_OUT) for name in golden.tensors}
    return {name: made[plain] for name, plain in names.items() if plain in made}


def _run_schedule(golden: Golden) -> dict[str, Tensor]:
    """Compute the buffers of a schedule, and the parameters of DDIM where the steps are told."""
    schedule = stated_schedule(golden)
    made = schedule_buffers(schedule) | _loss_buffers(schedule)
    if "steps" in golden.about:
        made |= _ddim_parameters(schedule, golden.about)
    return _kept(golden, made)


# --- sampling -----------------------------------------------------------------------------------


_STREAM = "z"
"""What the latent of a trajectory of one diffuser is called here; its golden gives no name."""


def _run_sampling(golden: Golden) -> dict[str, Tensor]:
    """Sample in each wiring that an output may have been made in; and tell the sampler's steps."""
    made = in_its_wirings(golden, cache(lambda *wirings: _sampled(golden, *wirings)))
    schedule = stated_schedule(golden)
    follows = schedule_buffers(schedule) | _ddim_parameters(schedule, golden.about)
    return made | _kept(golden, follows)


@torch.no_grad()
def _sampled(golden: Golden, wiring: str, skips: str) -> dict[str, Tensor]:
    """Sample with DDIM and guidance from a mixture of prompts, as the released code does.

    Several latents, "x_T_<stream>", are denoised together by one sampler, with the same prompts.
    """
    about, starts = golden.about, _starts(golden)
    schedule, codi = stated_schedule(golden), _model(golden, starts, wiring, skips)
    space = ProductSpace({name: tuple(as_ours(x).shape[1:]) for name, x in starts.items()})
    rule, prediction = GuidanceRule(about["scale"]), PREDICTIONS["epsilon"]
    cond = mixed(golden, "cond")
    counts = about["scale"] != 1.0 or any(name.startswith("uncond") for name in golden.tensors)
    both = torch.cat([cond, mixed(golden, "uncond") if counts else cond])

    def denoise(packed: Tensor, t: int) -> Tensor:
        z_t = space.unpack(packed)
        now = torch.full((len(packed),), t)
        doubled = {name: torch.cat([z, z]) for name, z in z_t.items()}
        predicted = codi(doubled, dict.fromkeys(z_t, now.repeat(2)), both)
        guided, unguided = space.pack(predicted).chunk(2)
        alpha, sigma = schedule.alpha(now, 2), schedule.sigma(now, 2)
        return prediction.recover(rule.apply(guided, unguided, t), packed, alpha, sigma)[0]

    trajectory: list[tuple[Tensor, Tensor]] = []
    SAMPLERS["ddim"](
        denoise,
        space.pack({name: as_ours(x) for name, x in starts.items()}),
        released_timesteps(schedule, about["steps"]),
        schedule,
        eta=about.get("eta", 0.0),
        noise=_noise(golden, space),
        callback=lambda _i, _n, _t, z, z0: trajectory.append((z, z0)),
    )
    made: dict[str, Tensor] = {}
    along, clean = (torch.stack(kind) for kind in zip(*trajectory, strict=True))
    for what, packed in {"traj": along, "pred_x0": clean, "final": along[-1]}.items():
        latents = space.unpack(packed.flatten(0, -2))
        for stream, x in starts.items():
            value = latents[stream].reshape(*packed.shape[:-2], *x.shape)
            made |= dict.fromkeys(_names_of(what, stream, alone=len(starts) == 1), value)
    return made


def _starts(golden: Golden) -> dict[str, Tensor]:
    """Return the noise that each stream starts from, "x_T", or "x_T_<stream>" where it is joint.

    It may be "x_T" there too, where the configuration has one network, whose stream it then is.

    Raises:
        ConfigError: there is none.
    """
    if not is_joint(golden.about):
        return {_STREAM: golden["x_T"]}
    names = {n: n.removeprefix("x_").removeprefix("T_") for n in golden.tensors if n[:2] == "x_"}
    plain = names.pop("x_T", None)
    if names:
        return {stream: golden[name] for name, stream in names.items()}
    networks = [key for key in golden.about["config"] if key.startswith("unet_")]
    if plain is None or len(networks) > 1:
        raise ConfigError(f"{golden.path}: has no noise to start from; add x_T_<stream>")
    start = golden["x_T"]
    return {stream_of(networks[0], start): start}


def _names_of(what: str, stream: str, alone: bool) -> tuple[str, ...]:
    """Return how goldens may call an output of a stream, which may be the only one."""
    finals = (f"out_{stream}",) if what == "final" else ()
    plain = (f"out_{what}",) if alone else ()
    return (f"out_{what}_{stream}", f"out_{stream}_{what}", *finals, *plain)


def _model(golden: Golden, starts: Mapping[str, Tensor], wiring: str, skips: str) -> CoDi:
    if is_joint(golden.about):
        return joint_model(golden, starts, wiring, skips)
    stated = stated_config(golden.about["config"], starts[_STREAM], golden.about.get("cls"))
    config = diffuser_config(stated, skips)
    return CoDi({_STREAM: filled_diffuser(golden, config, golden.weights())}, {})


def _noise(golden: Golden, space: ProductSpace) -> Callable[[int], Tensor] | None:
    """Return the fresh noise that a golden keeps of each move, if any.

    It is `noise` (moves, B, ...) of one stream, or `noise_<stream>` where they are named.

    Raises:
        ConfigError: it keeps none, and its eta asks for some.
    """
    plain = len(space.shapes) == 1 and not any(golden.has(f"noise_{s}") for s in space.shapes)
    names = {s: "noise" if plain else f"noise_{s}" for s in space.shapes}
    if all(golden.has(name) for name in names.values()):
        noise = {stream: golden[name] for stream, name in names.items()}
        return lambda draw: space.pack({s: as_ours(x[draw - 1]) for s, x in noise.items()})
    eta = golden.about.get("eta", 0.0)
    if eta:
        wanted = " and ".join(repr(name) for name in names.values())
        raise ConfigError(
            f"{golden.path}: eta = {eta} and no tensor {wanted}; add what was drawn in each "
            "move, (moves, B, ...)"
        )
    return None


# --- the list -----------------------------------------------------------------------------------


def _lists(about: Mapping[str, Any], *starts: str) -> bool:
    """Say whether a JSON lists, for each of `starts`, a tensor whose name begins so."""
    names = [str(name) for name in about.get("tensors", ())]
    return all(any(name.startswith(start) for name in names) for start in starts)


def _is_schedule(about: Mapping[str, Any]) -> bool:
    names = (*SCHEDULE_BUFFERS, "ddim_")
    return any(_lists(about, start + name) for start in ("", _OUT) for name in names)


CHECKS: tuple[Check, ...] = (
    Check(is_sampling, _run_sampling, tolerance=1e-3),
    Check(lambda about: _is_schedule(about) and not is_sampling(about), _run_schedule),
)
"""How the goldens of schedules and of sampling are recognised and run."""
