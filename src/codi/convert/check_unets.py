"""Checks of diffusers: the goldens of UNet steps, temporal blocks and joint steps.

Networks are built from the configuration that a golden's JSON states in the words of the released
code, with its defaults. That code counts steps from 0; here the lowest noise level is t = 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert.golden import Check, Golden
from codi.convert.rules import Table
from codi.convert.unets import TEMPORAL, released_diffuser, released_environment
from codi.encoders.environment import PooledEnvironmentConfig
from codi.model import CoDi
from codi.nn.temporal import TemporalBlock, TemporalConfig, temporal_shift
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig

DiffuserConfig = UNetConfig | TextUNetConfig

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

NETWORKS = {"video": "unet_image"}
"""Stream of clips -> the network that denoises it, which is that of single frames."""

_SKIPS = {"official": "aliased", "aliased": "aliased", "unaliased": "standard"}
_WIRINGS = {"own": "own", "swapped": "others"}
_OUTPUTS = ("out", "h_con")
"""How the names of what a network makes begin."""
_LAYERS = "num_noattn_blocks"
_CLIP = "is_clip"
"""Our own key in a golden's configuration: whether a single frame is a clip, not a picture."""
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
    _CLIP: False,
}
"""Defaults of the released code's constructors."""


# --- configurations and weights -----------------------------------------------------------------


def stated_config(config: Mapping[str, Any], latent: Tensor, cls: object = "") -> dict[str, Any]:
    """Return the configuration of a golden's diffuser, with what else tells its kind.

    Args:
        config: what the JSON says.
        latent: what the network denoises. A vector (B, D) is the text diffuser's, whose positions
            are 4 on every level unless the JSON says otherwise. Of five axes it is a clip, also
            where that is of one frame.
        cls: the class that the JSON names; "...0D..." is the text diffuser's.
    """
    stated: dict[str, Any] = {_CLIP: latent.ndim == 5}
    if latent.ndim == 2 or "0D" in str(cls):
        stated["second_dim"] = (4,)
    return stated | dict(config)


def _temporal(told: Mapping[str, Any]) -> TemporalConfig | None:
    if not told["use_video_architecture"]:
        return None
    alone: Literal["picture", "clip"] = "clip" if told[_CLIP] else "picture"
    return replace(TEMPORAL_CONFIG, head_divisor=told["video_dim_scale_factor"], alone=alone)


def diffuser_config(released: Mapping[str, Any], skips: str = "aliased") -> DiffuserConfig:
    """Return the diffuser that the released code's configuration describes.

    With `second_dim` it is the text diffuser, of so many positions; see `stated_config`.

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


def filled_diffuser(
    golden: Golden, config: DiffuserConfig, tensors: Mapping[str, Tensor]
) -> nn.Module:
    """Return a diffuser with those of a golden's foreign weights that are its own."""
    wanted = {key: value for key, value in tensors.items() if not key.startswith(_OUT)}
    return golden.filled(config.build(), released_diffuser(config), wanted)


def _environment(
    golden: Golden, config: PooledEnvironmentConfig, tensors: Mapping[str, Tensor]
) -> nn.Module:
    wanted = {key: value for key, value in tensors.items() if key.startswith(_OUT)}
    return golden.filled(config.build(), released_environment(config), wanted)


def as_ours(z: Tensor) -> Tensor:
    """Give a picture its frame axis: (B, C, H, W) -> (B, C, 1, H, W)."""
    return z.unsqueeze(2) if z.ndim == 4 else z


def _steps(golden: Golden, batch: int) -> Tensor:
    """Return the step (B,) of each sample, told for each or for all."""
    return (golden["t"] + 1).reshape(-1).expand(batch)


def mixed(golden: Golden, kind: str) -> Tensor:
    """Return the mixture of the contexts `kind` or `kind`_<modality>, by their weights.

    Raises:
        ConfigError: there are none, or their weights sum up to nothing.
    """
    names = [name for name in golden.tensors if name == kind or name.startswith(f"{kind}_")]
    if not names:
        raise ConfigError(f"{golden.path}: has no context {kind}, nor {kind}_<modality>; add it")
    said = golden.about.get("mix_weight") or {}
    weights = {name: said.get(name.removeprefix(f"{kind}_"), 1.0) for name in names}
    total = sum(weights.values())
    if not total:
        raise ConfigError(f"{golden.path}: mix_weight = {said}; its sum must not be 0")
    return torch.stack([golden[name] * (weights[name] / total) for name in names]).sum(0)


# --- the wirings of outputs --------------------------------------------------------------------


def ways_of(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Return what an output is called, who listens to whom in it, and the skips it may be of.

    Its name may end with both, or with the skips alone. Where it does not, streams are wired as
    released, and nothing says whether the skips are those of the released code's joint class, which
    overwrites the innermost one, or the network's own.

    >>> ways_of("out_video_swapped_aliased")
    ('out_video', 'others', ('aliased',))
    >>> ways_of("out_official")
    ('out', 'own', ('aliased',))
    >>> ways_of("out")
    ('out', 'own', ('aliased', 'standard'))
    """
    stem, _, ending = name.rpartition("_")
    if ending not in _SKIPS:
        return name, "own", tuple(dict.fromkeys(_SKIPS.values()))
    outer, _, wiring = stem.rpartition("_")
    if wiring not in _WIRINGS:
        return stem, "own", (_SKIPS[ending],)
    return outer, _WIRINGS[wiring], (_SKIPS[ending],)


def in_its_wirings(
    golden: Golden, make: Callable[[str, str], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the outputs of a golden, each made in the wiring that its name ends with.

    Where that leaves the skips open, they are those of the joint class for streams that are made
    together, and for one alone the nearer of what both make.

    Args:
        golden: whose outputs.
        make: of who listens to whom and the skips: what comes of it, by the name without ending.
    """
    made = {}
    for name in golden.tensors:
        stem, wiring, every_skips = ways_of(name)
        if not stem.startswith(_OUTPUTS):
            continue
        if is_joint(golden.about) and len(every_skips) > 1:
            every_skips = ("aliased",)
        found = [values[stem] for skips in every_skips if stem in (values := make(wiring, skips))]
        if found:
            made[name] = _nearest(golden.expected(name), found)
    return made


def _nearest(expected: Tensor, found: Sequence[Tensor]) -> Tensor:
    """Return the one of `found`, which are of one shape, that differs least from `expected`."""
    if len(found) == 1 or found[0].shape != expected.shape:
        return found[0]
    return min(found, key=lambda made: float((made - expected).abs().max()))


# --- one step of one diffuser -------------------------------------------------------------------


@torch.no_grad()
def _run_step(golden: Golden) -> dict[str, Tensor]:
    x, weights = golden["x"], golden.weights()
    stated = stated_config(golden.about["config"], x, golden.about.get("cls"))

    @cache
    def made(_wiring: str, skips: str) -> dict[str, Tensor]:
        diffuser = filled_diffuser(golden, diffuser_config(stated, skips), weights)
        out = diffuser(as_ours(x), _steps(golden, len(x)), mixed(golden, "context"))
        return {"out": out.reshape(x.shape)}

    return in_its_wirings(golden, made)


@torch.no_grad()
def _run_temporal(golden: Golden) -> dict[str, Tensor]:
    x, weights = golden["x"], golden.weights()
    batch, channels, frames = x.shape[:3]
    # Its sizes are those of its weights, whatever the JSON leaves out.
    rates, queries, heads = (weights[name].shape for name in _TEMPORAL_SIZES)
    config = replace(TEMPORAL_CONFIG, frame_rate=golden.about.get("framerate", 4), frames=rates[1])
    block = TemporalBlock(channels, heads[0], queries[0] // heads[0], 2.0, config, group_channels=1)
    golden.filled(block, Table(TEMPORAL), weights)
    folded = x.transpose(1, 2).flatten(0, 1)
    sequence = x.permute(0, 3, 4, 2, 1).reshape(-1, frames, channels)
    made = {
        "out_block": block(folded, frames).unflatten(0, (batch, frames)).transpose(1, 2),
        "out_rel_pos_bias": block.position.bias(frames),  # type: ignore[operator]
        "out_temporal_attn": block.attend(sequence),
        "out_frame_shift": temporal_shift(x.transpose(1, 2), config.shift_chunks).transpose(1, 2),
    }
    return {name: made[name] for name in golden.tensors if name in made}


_TEMPORAL_SIZES = (
    "temporal_attn.frame_rate_embeds",  # (1, rates, C)
    "temporal_attn.to_q.weight",  # (heads * channels per head, C)
    "temporal_rel_pos_bias.net.2.weight",  # (heads, C / 2)
)


# --- joint steps --------------------------------------------------------------------------------


def joint_model(golden: Golden, latents: Mapping[str, Tensor], wiring: str, skips: str) -> CoDi:
    """Return the streams of a joint golden, name -> latent, with its weights, as one model.

    Its configuration has one entry a network, "unet_<stream>"; image and video share one. One
    stream alone hears nothing, so that no environment encoder need be among its weights.
    """
    diffusers, environments = {}, {}
    for stream, latent in latents.items():
        network = NETWORKS.get(stream, f"unet_{stream}")
        released = stated_config(golden.about["config"][network], latent)
        weights = golden.weights(f"{network}.")
        diffusers[stream] = filled_diffuser(golden, diffuser_config(released, skips), weights)
        if len(latents) > 1:
            environments[stream] = _environment(golden, environment_config(released), weights)
    return CoDi(diffusers, environments, wiring)


def _run_joint(golden: Golden) -> dict[str, Tensor]:
    return in_its_wirings(golden, _joint(golden))


def _run_wirings(golden: Golden) -> dict[str, Tensor]:
    """Run the joint step that the text names, in the wirings that the outputs' names end with."""
    base = next((other for other in golden.named() if "x_" in " ".join(other.tensors)), None)
    if base is None:
        raise ConfigError(f"{golden.path}: names no golden with inputs; name one in `what`")
    return in_its_wirings(golden, _joint(base))


def stream_of(network: str, latent: Tensor) -> str:
    """Return which stream a latent is of, of those that a network denoises.

    >>> stream_of("unet_image", torch.zeros(1, 4, 2, 8, 8))
    'video'
    >>> stream_of("unet_image", torch.zeros(1, 4, 8, 8))
    'image'
    """
    clips = [stream for stream, shared in NETWORKS.items() if shared == network]
    return clips[0] if clips and latent.ndim == 5 else network.removeprefix("unet_")


def _joint(base: Golden) -> Callable[[str, str], dict[str, Tensor]]:
    """Return what makes, in a wiring, the predictions and environments of the streams of a step.

    Streams are named by their inputs, "x_<stream>".
    """
    inputs = {name.removeprefix("x_"): base[name] for name in base.tensors if name[:2] == "x_"}
    z_t = {stream: as_ours(x) for stream, x in inputs.items()}

    @cache
    @torch.no_grad()
    def made(wiring: str, skips: str) -> dict[str, Tensor]:
        codi = joint_model(base, inputs, wiring, skips)
        steps = {stream: _steps(base, len(z)) for stream, z in z_t.items()}
        predicted = codi(z_t, steps, mixed(base, "context"))
        environments = codi.environment_of(z_t, steps)
        outputs = {f"out_{name}": predicted[name].reshape(x.shape) for name, x in inputs.items()}
        return outputs | {f"h_con_{name}": value for name, value in environments.items()}

    return made


# --- the list -----------------------------------------------------------------------------------


def _config(about: Mapping[str, Any]) -> Mapping[str, Any]:
    config = about.get("config")
    return config if isinstance(config, dict) else {}


def _is_step(about: Mapping[str, Any]) -> bool:
    tensors = about.get("tensors", {})
    return "model_channels" in _config(about) and "x" in tensors and "t" in tensors


def is_joint(about: Mapping[str, Any]) -> bool:
    """Say whether the configuration is of several networks that denoise together."""
    return any(key.startswith("unet_") for key in _config(about))


def is_sampling(about: Mapping[str, Any]) -> bool:
    """Say whether a golden is of a trajectory: it has pure noise, or a number of steps."""
    names = [str(name) for name in about.get("tensors", ())]
    noise = any(name.startswith("x_T") for name in names)
    return noise or ("steps" in about and any(name.startswith("cond") for name in names))


def _is_temporal(about: Mapping[str, Any]) -> bool:
    sizes = {"dim", "dim_head", "heads"}
    return "SpatioTemporalAttention" in str(about.get("cls")) or sizes <= _config(about).keys()


def _is_wirings(about: Mapping[str, Any]) -> bool:
    """Say whether outputs of another golden's inputs are named by their wirings."""
    ways = "|".join(_WIRINGS)
    if is_joint(about) or is_sampling(about):
        return False
    return re.search(rf"({ways})_(un)?aliased", str(about.get("tensors", ""))) is not None


CHECKS: tuple[Check, ...] = (
    Check(_is_step, _run_step),
    Check(lambda about: is_joint(about) and not is_sampling(about), _run_joint),
    Check(_is_temporal, _run_temporal),
    Check(_is_wirings, _run_wirings),
)
"""How the goldens of diffusers are recognised and run."""
