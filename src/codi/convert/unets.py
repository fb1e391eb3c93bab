"""Tables of diffusers and environment encoders: the released CoDi, Stable Diffusion, Versatile.

All of them descend from latent diffusion's UNet, whose blocks are numbered in one list on the way
down and one on the way up; `diffusers` numbers them by level. What is said here once holds for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from codi.convert.rules import POINTWISE_2D, Layout, Rule, Table, below
from codi.diffusion import NoiseSchedule
from codi.encoders.environment import PooledEnvironmentConfig
from codi.nn.conv import group_norm
from codi.nn.temporal import TemporalConfig
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig

MODEL = "model.diffusion_model"
"""What latent diffusion calls its UNet."""

FRESH = {
    "*temporal.*": "the identity: a clip begins as its single frames",
    "*environment_attention.*": "the identity: streams begin as strangers",
}
"""What an image model's weights lack, and what it begins as."""

UNBATCHED = Layout(lambda x: x[0], lambda x: x[None])
"""A foreign table of shape (1, ...)."""

POINTWISE_3D = Layout(lambda x: x[..., 0, 0, 0], lambda x: x[..., None, None, None])
"""A foreign 3-D convolution of size 1, (out, in, 1, 1, 1), that is a linear layer here."""


# --- blocks -------------------------------------------------------------------------------------

_RESIDUAL = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "step": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
}
_RESIDUAL_DIFFUSERS = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "step": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
}
_CONVOLUTIONS = ("conv_in", "conv_out", "skip")

_TRANSFORMER = (
    Rule("norm", "norm"),
    Rule("proj_in", "proj_in"),
    Rule("proj_out", "proj_out"),
    *below(
        "",
        "transformer_blocks.0",
        (
            Rule("self_norm", "norm1"),
            Rule("self_attention", "attn1"),
            Rule("self_attention.to_out", "attn1.to_out.0"),
            Rule("cross_norm", "norm2"),
            Rule("cross_attention", "attn2"),
            Rule("cross_attention.to_out", "attn2.to_out.0"),
            Rule("feed_forward.norm", "norm3"),
            Rule("feed_forward.to_hidden", "ff.net.0.proj"),
            Rule("feed_forward.to_out", "ff.net.2"),
        ),
    ),
)

TEMPORAL = (
    *below(
        "",
        "temporal_attn",
        (
            Rule("position.frame", "pos_embeds", UNBATCHED),
            Rule("position.rate", "frame_rate_embeds", UNBATCHED),
            Rule("norm.gain", "norm.g"),
            Rule("attention", ""),
        ),
    ),
    *below(
        "position.to_bias",
        "temporal_rel_pos_bias.net",
        (Rule("0", "0.0"), Rule("2", "1.0"), Rule("4", "2")),
    ),
    *below(
        "feed_forward",
        "ff",
        (
            Rule("to_hidden.weight", "proj_in.0.weight", POINTWISE_3D),
            Rule("norm.gain", "proj_out.0.g", POINTWISE_3D),
            Rule("to_out.weight", "proj_out.1.weight", POINTWISE_3D),
        ),
    ),
    *below(
        "",
        "frameshiftblock.out_layers",
        (Rule("shift_norm", "0"), Rule("shift_conv", "2")),
    ),
)
"""A temporal block of the released CoDi, `SpatioTemporalAttention`."""


def _layer(ours: str, foreign: str, linear: bool) -> tuple[Rule, ...]:
    """Return the rules of a convolution, which is a 1 x 1 one there where it is `linear` here."""
    if not linear:
        return (Rule(ours, foreign),)
    return (
        Rule(f"{ours}.weight", f"{foreign}.weight", POINTWISE_2D),
        Rule(f"{ours}.bias", f"{foreign}.bias"),
    )


def _residual(names: dict[str, str], linear: bool = False) -> tuple[Rule, ...]:
    """Return the rules of a residual block."""
    return tuple(
        rule
        for ours, foreign in names.items()
        for rule in _layer(ours, foreign, linear and ours in _CONVOLUTIONS)
    )


@dataclass(frozen=True)
class _Blocks:
    """How latent diffusion stores one UNet's blocks.

    Attributes:
        linear: they are fully connected, and stored as 1 x 1 convolutions.
        wrapped: residual block and temporal block stand in a list of their own.
        temporal: the temporal blocks here, if any.
    """

    linear: bool
    wrapped: bool
    temporal: TemporalConfig | None

    def residual(self, ours: str, foreign: str) -> Iterator[Rule]:
        """Yield the rules of a residual block, and of the temporal block beside it."""
        first = f"{foreign}.0" if self.wrapped else foreign
        yield from below(f"{ours}.residual", first, _residual(_RESIDUAL, self.linear))
        if self.wrapped and self.temporal is not None and self.temporal.position == "index":
            yield from below(f"{ours}.temporal", f"{foreign}.1", TEMPORAL)

    def resampling(self, ours: str, foreign: str, name: str) -> Rule:
        """Return the rule of the layer between two levels."""
        return Rule(ours, foreign) if self.linear else Rule(f"{ours}.conv", f"{foreign}.{name}")


# --- latent diffusion's layout ------------------------------------------------------------------


def _ldm(config: UNetConfig, wrapped: bool) -> Iterator[Rule]:
    """Yield the rules of a UNet, without the layers at its ends."""
    c = config
    blocks = _Blocks(bool(c.positions), wrapped, c.temporal)
    yield Rule("step_embedding.layers.0", "time_embed.0")
    yield Rule("step_embedding.layers.2", "time_embed.2")
    last = len(c.multipliers) - 1
    number = 1
    for level, depth in enumerate(c.depths):
        for i in range(depth):
            yield from _ldm_block(blocks, f"down.{level}.{i}", "input_block", number, c, level)
            number += 1
        if level < last:
            name = f"input_blocks.{number}.0"
            yield blocks.resampling(f"downsample.{level}", name, "op")
            number += 1
    yield from blocks.residual("middle.0", "middle_block.0")
    yield from below("middle.0.transformer", "middle_block.1", _TRANSFORMER)
    yield from blocks.residual("middle.1", "middle_block.2")
    number = 0
    for up, level in enumerate(reversed(range(last + 1))):
        for i in range(c.depths[level] + 1):
            yield from _ldm_block(blocks, f"up.{up}.{i}", "output_block", number, c, level)
            number += 1
        if level > 0:  # the last block of the level holds it, after what else it has
            name = f"output_blocks.{number - 1}.{2 if c.attention[level] else 1}"
            yield blocks.resampling(f"upsample.{up}", name, "conv")
    yield Rule("norm_out", "out.0")


def _ldm_block(
    blocks: _Blocks, ours: str, way: str, number: int, config: UNetConfig, level: int
) -> Iterator[Rule]:
    """Yield the rules of one block of a level; `way` is "input_block" or "output_block"."""
    foreign = f"{way}s.{number}"
    yield from blocks.residual(ours, f"{foreign}.0")
    if config.attention[level]:
        yield from below(f"{ours}.transformer", f"{foreign}.1", _TRANSFORMER)
    if config.listens[level] and config.environment == "transformer":
        listener = f"{way}_connecters_in.{number}.0"
        yield from below(f"{ours}.environment_attention", listener, _TRANSFORMER)


def _ldm_diffuser(config: UNetConfig | TextUNetConfig, wrapped: bool) -> Iterator[Rule]:
    """Yield the rules of a diffuser, with the layers at its ends."""
    if isinstance(config, TextUNetConfig):
        yield from below("unet", "", _ldm(config.inner, wrapped))
        yield Rule("to_positions", "input_blocks.0.0")
        yield Rule("to_vector", "out.2")
    else:
        yield from _ldm(config, wrapped)
        yield Rule("conv_in", "input_blocks.0.0")
        yield Rule("conv_out", "out.2")


def released_diffuser(config: UNetConfig | TextUNetConfig, prefix: str = "") -> Table:
    """Return the table of a diffuser of the released CoDi.

    `prefix` is "model.diffusion_model.unet_image", "...unet_text" or "...unet_audio" in its files.
    The environment encoder lies below the same name: `released_environment`.
    """
    wrapped = isinstance(config, UNetConfig) and config.temporal is not None
    return Table(below("", prefix, _ldm_diffuser(config, wrapped)))


def released_environment(config: PooledEnvironmentConfig, prefix: str = "") -> Table:
    """Return the table of an environment encoder of the released CoDi, its `connecters_out`."""
    c = config
    blocks = _Blocks(bool(c.positions), c.temporal is not None, c.temporal)
    rules = [Rule("conv_in", "0.0")]
    number = 1
    for level, depth in enumerate(c.depths):
        for i in range(depth):
            rules += blocks.residual(f"blocks.{level}.{i}", f"{number}.0")
            number += 1
        if level < len(c.depths) - 1:
            rules.append(blocks.resampling(f"downsample.{level}", f"{number}.0", "op"))
            number += 1
    rules += [Rule("norm_out", f"{number}.0"), Rule("conv_out", f"{number}.2")]
    return Table(below("", f"{prefix}.connecters_out".lstrip("."), rules))


def stable_diffusion(config: UNetConfig, prefix: str = MODEL) -> Table:
    """Return the table of Stable Diffusion 1's UNet in latent diffusion's layout (`.ckpt`)."""
    alone = replace(config, environment="sublayer")
    return Table(below("", prefix, _ldm_diffuser(alone, wrapped=False)), fresh=FRESH)


def versatile_text(config: TextUNetConfig, prefix: str = f"{MODEL}.unet_text") -> Table:
    """Return the table of Versatile Diffusion's text UNet, the released CoDi's without joints."""
    alone = replace(config, unet=replace(config.unet, environment="sublayer"))
    return Table(below("", prefix, _ldm_diffuser(alone, wrapped=False)), fresh=FRESH)


# --- the layout of `diffusers` ------------------------------------------------------------------


def stable_diffusion_diffusers(config: UNetConfig, prefix: str = "") -> Table:
    """Return the table of Stable Diffusion 1's UNet as `diffusers` stores it.

    That is a `UNet2DConditionModel` with convolutions as projections.
    """
    return Table(below("", prefix, _diffusers(config)), fresh=FRESH)


def stable_diffusion_config(config: UNetConfig) -> dict[str, object]:
    """Return the `config.json` with which `diffusers` loads what that table writes."""
    c = config
    widths = [c.channels * multiplier for multiplier in c.multipliers]
    # The library's name is older than its meaning: it is the number of heads.
    heads = c.heads or [width // (c.head_channels or width) for width in widths]
    attends = [("CrossAttn" if attending else "") for attending in c.attention]
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": heads,
        "block_out_channels": widths,
        "center_input_sample": False,
        "cross_attention_dim": c.context_width,
        "down_block_types": [f"{kind}DownBlock2D" for kind in attends],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": c.latent_channels,
        "layers_per_block": list(c.depths) if len(set(c.depths)) > 1 else c.depths[0],
        "norm_eps": 1e-5,
        "norm_num_groups": _groups(c),
        "out_channels": c.latent_channels,
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(attends)],
    }


def _groups(c: UNetConfig) -> int:
    first = group_norm(c.channels * c.multipliers[0], c.groups, group_channels=c.group_channels)
    return first.num_groups


def _diffusers(config: UNetConfig) -> Iterator[Rule]:
    c = config
    last = len(c.multipliers) - 1
    yield Rule("step_embedding.layers.0", "time_embedding.linear_1")
    yield Rule("step_embedding.layers.2", "time_embedding.linear_2")
    yield Rule("conv_in", "conv_in")
    for level, depth in enumerate(c.depths):
        foreign = f"down_blocks.{level}"
        yield from _diffusers_level(f"down.{level}", foreign, depth, c.attention[level])
        if level < last:
            yield Rule(f"downsample.{level}.conv", f"{foreign}.downsamplers.0.conv")
    yield from _diffusers_level("middle", "mid_block", 2, attends=False)
    yield from below("middle.0.transformer", "mid_block.attentions.0", _TRANSFORMER)
    for up, level in enumerate(reversed(range(last + 1))):
        foreign = f"up_blocks.{up}"
        yield from _diffusers_level(f"up.{up}", foreign, c.depths[level] + 1, c.attention[level])
        if level > 0:
            yield Rule(f"upsample.{up}.conv", f"{foreign}.upsamplers.0.conv")
    yield Rule("norm_out", "conv_norm_out")
    yield Rule("conv_out", "conv_out")


def _diffusers_level(ours: str, foreign: str, depth: int, attends: bool) -> Iterator[Rule]:
    for i in range(depth):
        resnet = f"{foreign}.resnets.{i}"
        yield from below(f"{ours}.{i}.residual", resnet, _residual(_RESIDUAL_DIFFUSERS))
        if attends:
            attention = f"{foreign}.attentions.{i}"
            yield from below(f"{ours}.{i}.transformer", attention, _TRANSFORMER)


# --- the schedule -------------------------------------------------------------------------------


SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""What latent diffusion's files store of the noise schedule."""


def schedule_buffers(schedule: NoiseSchedule) -> dict[str, Tensor]:
    """Return `SCHEDULE_BUFFERS` by name, each (T,) float64; files hold them in float32.

    All of it follows from the schedule (Ho et al. 2020), so that nothing of it is ever read.
    """
    level, before = schedule.alpha_bar[1:], schedule.alpha_bar[:-1]
    betas = 1 - level / before
    variance = betas * (1 - before) / (1 - level)
    values = (
        betas,
        level,
        before,
        level.sqrt(),
        (1 - level).sqrt(),
        (1 - level).log(),
        level.rsqrt(),
        (1 / level - 1).sqrt(),
        variance,
        variance.clamp(min=1e-20).log(),
        betas * before.sqrt() / (1 - level),
        (1 - before) * (1 - betas).sqrt() / (1 - level),
    )
    return dict(zip(SCHEDULE_BUFFERS, values, strict=True))
