"""Checks of diffusers: the goldens of UNet steps, temporal blocks, joint steps and sampling.

Networks are built from the configuration that a golden's JSON states in the words of the released
code, with its defaults. That code counts steps from 0; here the lowest noise level is t = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert.golden import Check, Golden
from codi.convert.rules import Table
from codi.convert.unets import TEMPORAL, released_diffuser, released_environment
from codi.diffusion import PREDICTIONS, SAMPLERS, GuidanceRule, NoiseSchedule, ProductSpace
from codi.encoders.environment import PooledEnvironmentConfig
from codi.model import CoDi
from codi.nn.temporal import TemporalBlock, TemporalConfig, temporal_shift
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig

DiffuserConfig = UNetConfig | TextUNetConfig
Module = TypeVar("Module", bound=nn.Module)

TEMPORAL_CONFIG = TemporalConfig(
    place="after",
    position="index",
    norm="time",
    feed_forward=True,
    fused=True,
    heads=8,
    head_divisor=4,
)
"""The temporal block of the released CoDi."""

_SKIPS = {"official": "aliased", "aliased": "aliased", "unaliased": "standard"}
_WIRINGS = {"own": "own", "swapped": "others"}
_LAYERS = "num_noattn_blocks"
_DEFAULTS: dict[str, Any] = {
    "context_dim": 768,
    _LAYERS: (2, 2, 2, 2),
    "channel_mult": (1, 2, 4, 8),
    "with_attn": (True, True, True, False),
    "channel_mult_connector": (1, 2, 4),
    f"{_LAYERS}_connector": (1, 1, 1),
    "with_connector": (True, True, True, False),
    "connector_output_channel": 1280,
    "num_heads": 8,
    "use_video_architecture": False,
    "video_dim_scale_factor": 4,
    "init_connector": True,
}
"""Defaults of the released code's constructors."""


# --- configurations and weights -----------------------------------------------------------------


def _temporal(told: Mapping[str, Any]) -> TemporalConfig | None:
    if not told["use_video_architecture"]:
        return None
    return replace(TEMPORAL_CONFIG, head_divisor=told["video_dim_scale_factor"])


def diffuser_config(released: Mapping[str, Any], skips: str = "aliased") -> DiffuserConfig:
    """Return the diffuser that the released code's configuration describes.

    With `second_dim` it is the text diffuser, of so many positions.

    Raises:
        ConfigError: positions that differ between levels.
    """
    told = {**_DEFAULTS, **released}
    positions = _positions(told, "second_dim")
    channels = told["model_channels"]
    levels = len(told["channel_mult"])  # lists may be longer, and are read as far as needed
    listening = tuple(told["with_connector"][:levels])
    joins = told["init_connector"] and any(listening)
    unet = UNetConfig(
        latent_channels=channels if positions else told["input_channels"],
        channels=channels,
        context_width=told["context_dim"],
        duration_s=2.0,  # read by nothing that was released
        multipliers=tuple(told["channel_mult"]),
        depth=tuple(told[_LAYERS][:levels]),
        attention=tuple(told["with_attn"][:levels]),
        heads=told["num_heads"],
        environment_width=told["connector_output_channel"] if joins else None,
        environment="transformer",
        listening=listening if joins else None,
        temporal=_temporal(told),
        group_channels=1,
        skips=skips,  # type: ignore[arg-type]
        first_step=0,
    )
    if not positions:
        return unet
    return TextUNetConfig(told["input_channels"], positions, unet, blocks="fully_connected")


def environment_config(released: Mapping[str, Any]) -> PooledEnvironmentConfig:
    """Return the environment encoder that the released code's configuration describes.

    Raises:
        ConfigError: positions that differ between levels.
    """
    told = {**_DEFAULTS, **released}
    return PooledEnvironmentConfig(
        latent_channels=told["input_channels"],
        environment_width=told["connector_output_channel"],
        channels=told["model_channels"],
        multipliers=tuple(told["channel_mult_connector"]),
        depth=tuple(told[f"{_LAYERS}_connector"][: len(told["channel_mult_connector"])]),
        group_channels=1,
        positions=_positions(told, "second_dim_connector"),
        temporal=_temporal(told),
    )


def _positions(told: Mapping[str, Any], key: str) -> int | None:
    """Return how many positions a text network has, None for the others."""
    if "second_dim" not in told:
        return None
    found = set(told.get(key, (4,)))
    if len(found) != 1:
        raise ConfigError(f"{key} = {list(told[key])}; all levels must have equally many positions")
    return int(found.pop())


_OUT = "connecters_out."


def _diffuser(golden: Golden, config: DiffuserConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    wanted = {key: value for key, value in tensors.items() if not key.startswith(_OUT)}
    return golden.filled(config.build(), released_diffuser(config), wanted)


def _environment(
    golden: Golden, config: PooledEnvironmentConfig, tensors: Mapping[str, Tensor]
) -> nn.Module:
    wanted = {key: value for key, value in tensors.items() if key.startswith(_OUT)}
    return golden.filled(config.build(), released_environment(config), wanted)


def _as_ours(z: Tensor) -> Tensor:
    """Give a picture its frame axis: (B, C, H, W) -> (B, C, 1, H, W)."""
    return z.unsqueeze(2) if z.ndim == 4 else z


def _steps(golden: Golden) -> Tensor:
    return golden["t"] + 1


# --- one step of one diffuser -------------------------------------------------------------------


@torch.no_grad()
def _run_step(golden: Golden) -> dict[str, Tensor]:
    x, weights = golden["x"], golden.weights()
    made = {}
    for name in golden.tensors:
        if name.startswith("out_"):
            config = diffuser_config(golden.about["config"], _skips(name))
            diffuser = _diffuser(golden, config, weights)
            predicted = diffuser(_as_ours(x), _steps(golden), golden["context"])
            made[name] = predicted.reshape(x.shape)
    return made


def _skips(name: str) -> str:
    """Return the wiring of the skips that an output's name ends with; the released one if none."""
    return _SKIPS.get(name.rsplit("_", 1)[-1], "aliased")


@torch.no_grad()
def _run_temporal(golden: Golden) -> dict[str, Tensor]:
    x, about = golden["x"], golden.about["config"]
    config = replace(TEMPORAL_CONFIG, frame_rate=golden.about.get("framerate", 4))
    block = TemporalBlock(
        about["dim"], about["heads"], about["dim_head"], 2.0, config, group_channels=1
    )
    golden.filled(block, Table(TEMPORAL), golden.weights())
    batch, channels, frames = x.shape[:3]
    folded = x.transpose(1, 2).flatten(0, 1)
    sequence = x.permute(0, 3, 4, 2, 1).reshape(-1, frames, channels)
    made = {
        "out_block": block(folded, frames).unflatten(0, (batch, frames)).transpose(1, 2),
        "out_rel_pos_bias": block.position.bias(frames),  # type: ignore[operator]
        "out_temporal_attn": block.attend(sequence),
        "out_frame_shift": temporal_shift(x.transpose(1, 2), config.shift_chunks).transpose(1, 2),
    }
    return {name: made[name] for name in golden.tensors if name in made}


# --- joint steps --------------------------------------------------------------------------------


def _source(golden: Golden, prefix: str) -> Golden:
    """Return the golden with the weights below `prefix`: this one, or one that its text names.

    Raises:
        ConfigError: none of them has such weights.
    """
    start = f"w.{prefix}"
    for candidate in (golden, *_named(golden)):
        if any(key.startswith(start) for key in candidate.tensors):
            return candidate
    raise ConfigError(f"{golden.path}: names no file with weights {start}*; name one in `what`")


def _named(golden: Golden) -> list[Golden]:
    """Return the goldens of the folder that this one's text names, the longest name first."""
    others = sorted(golden.path.parent.glob("*.json"), key=lambda path: -len(path.stem))
    said = str(golden.about.get("what", ""))
    return [Golden(path) for path in others if path != golden.path and path.stem in said]


def _joint(base: Golden, wiring: str, skips: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (predictions, environments) of every stream of a joint step.

    Streams are named by their inputs, "x_<stream>"; image and video share one network.
    """
    streams = [name.removeprefix("x_") for name in base.tensors if name.startswith("x_")]
    diffusers, environments = {}, {}
    for stream in streams:
        network = "unet_image" if stream == "video" else f"unet_{stream}"
        released = base.about["config"][network]
        weights = _source(base, f"{network}.").weights(f"{network}.")
        diffusers[stream] = _diffuser(base, diffuser_config(released, skips), weights)
        environments[stream] = _environment(base, environment_config(released), weights)
    codi = CoDi(diffusers, environments, wiring)
    z_t = {stream: _as_ours(base[f"x_{stream}"]) for stream in streams}
    t = dict.fromkeys(streams, _steps(base))
    predicted = codi(z_t, t, base["context"])
    shaped = {stream: predicted[stream].reshape(base[f"x_{stream}"].shape) for stream in streams}
    return shaped, codi.environment_of(z_t, t)


@torch.no_grad()
def _run_joint(golden: Golden) -> dict[str, Tensor]:
    predicted, environments = _joint(golden, "own", "aliased")
    made = {f"out_{stream}": value for stream, value in predicted.items()}
    made |= {f"h_con_{stream}": value for stream, value in environments.items()}
    return {name: value for name, value in made.items() if name in golden.tensors}


@torch.no_grad()
def _run_wirings(golden: Golden) -> dict[str, Tensor]:
    """Run the joint step that the text names, in the wirings that the outputs' names end with."""
    base = next((other for other in _named(golden) if "x_" in " ".join(other.tensors)), None)
    if base is None:
        raise ConfigError(f"{golden.path}: names no golden with inputs; name one in `what`")
    made: dict[str, Tensor] = {}
    for ending_of_wiring, wiring in _WIRINGS.items():
        for skips in ("aliased", "unaliased"):
            ending = f"_{ending_of_wiring}_{skips}"
            if any(name.endswith(ending) for name in golden.tensors):
                predicted, _ = _joint(base, wiring, _SKIPS[skips])
                made |= {f"out_{stream}{ending}": x for stream, x in predicted.items()}
    return {name: value for name, value in made.items() if name in golden.tensors}


# --- sampling -----------------------------------------------------------------------------------


@torch.no_grad()
def _run_sampling(golden: Golden) -> dict[str, Tensor]:
    """Sample with DDIM and guidance from a mixture of prompts, as the released code does."""
    about, start = golden.about, golden["x_T"]
    schedule = NoiseSchedule.build()
    timesteps = schedule.timesteps(about["steps"], "ldm")
    diffuser = _diffuser(golden, diffuser_config(about["config"]), golden.weights())
    space = ProductSpace({"z": tuple(_as_ours(start).shape[1:])})
    rule, prediction = GuidanceRule(about["scale"]), PREDICTIONS["epsilon"]
    names = [name.removeprefix("cond_") for name in golden.tensors if name.startswith("cond_")]
    weights = {name: about.get("mix_weight", {}).get(name, 1.0) for name in names}
    cond, uncond = (
        sum((golden[f"{kind}_{name}"] * w for name, w in weights.items()), torch.zeros(()))
        / sum(weights.values())
        for kind in ("cond", "uncond")
    )

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
        space.pack({"z": _as_ours(start)}),
        timesteps,
        schedule,
        eta=about["eta"],
        callback=lambda _i, _n, _t, z, z0: trajectory.append((z, z0)),
    )
    along, clean = (torch.stack(kind) for kind in zip(*trajectory, strict=True))
    ascending = torch.tensor(timesteps[::-1])
    made = {
        "ddim_timesteps": ascending[1:] - 1,
        "ddim_alphas": schedule.alpha_bar[ascending[1:]].float(),
        "ddim_alphas_prev": schedule.alpha_bar[ascending[:-1]],
        "out_traj": along.reshape(-1, *start.shape),
        "out_pred_x0": clean.reshape(-1, *start.shape),
        "out_final": final.reshape(start.shape),
    }
    return {name: value for name, value in made.items() if name in golden.tensors}


def _run_schedule(golden: Golden) -> dict[str, Tensor]:
    given = next(n for n in ("alphas_cumprod", "betas") if golden.has(n))
    level = NoiseSchedule.build(steps=len(golden[given])).alpha_bar
    return {"betas": 1 - level[1:] / level[:-1], "alphas_cumprod": level[1:]}


# --- the list -----------------------------------------------------------------------------------


def _config(about: Mapping[str, Any]) -> Mapping[str, Any]:
    config = about.get("config")
    return config if isinstance(config, dict) else {}


def _is_step(about: Mapping[str, Any]) -> bool:
    tensors = about.get("tensors", {})
    return "model_channels" in _config(about) and "x" in tensors and "t" in tensors


def _is_joint(about: Mapping[str, Any]) -> bool:
    return any(key.startswith("unet_") for key in _config(about))


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether a JSON's list of tensors, or the text in its place, has all of `names`."""
    return lambda about: all(name in str(about.get("tensors", "")) for name in names)


CHECKS: tuple[Check, ...] = (
    Check(_is_step, _run_step),
    Check(_is_joint, _run_joint),
    Check(lambda about: "SpatioTemporalAttention" in str(about.get("cls")), _run_temporal),
    Check(_has("swapped_"), _run_wirings),
    Check(_has("'x_T'", "'cond_"), _run_sampling, tolerance=1e-3),
    Check(_has("'betas'", "'alphas_cumprod'"), _run_schedule),
)
