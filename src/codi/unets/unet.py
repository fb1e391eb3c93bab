"""The diffusion UNet on latents (B, C, F, H, W).

An image has F = 1, a clip F = n, a spectrogram F = 1 with time along H, and a sentence F = H = 1
(see `codi.unets.text_unet`). It predicts whatever it is trained to predict; it does not know noise
schedules, guidance, or which modality it denoises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from codi.nn.conv import Dense, Downsample, Shift, Upsample, conv, group_norm, zeroed
from codi.nn.embedding import PooledContext, StepEmbedding, slot_times
from codi.nn.temporal import TemporalConfig
from codi.types import TimeAxis
from codi.unets.blocks import (
    BlockConfig,
    Conditioning,
    EnvironmentForm,
    UNetBlock,
    position_times,
)
from codi.unets.prepared import Context, PreparedContext
from codi.unets.reuse import OUTERMOST, DeepFeatures


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet.

    Attributes:
        latent_channels: C of the latent it reads and writes.
        channels: channels of the first level; `multipliers` gives those of every level.
        depth: residual blocks per level, or those of each level.
        attention: for each level, whether its blocks attend (to themselves, prompt, environment).
        heads, head_channels: heads of every attention, by count, by width, or both.
        context_width: D of the prompt's context; environment_width: E, or None for none.
        time_axis: which axis of the latent is time; duration_s: how long the clip is.
        kernel: of the residual blocks' convolutions; resample: whether levels change resolution.
        groups, group_channels: most groups of a norm, and fewest channels of a group.
        temporal: temporal blocks beside every residual block, for clips.
        environment: what attends to the environment: a "sublayer" of every transformer, or, in the
            released CoDi, a "transformer" of its own after every block of a level that listens,
            after the level's change of resolution, and none in the middle.
        listening: for each level, whether its blocks listen to the environment; `attention`'s when
            None.
        skips: "standard", or "aliased" as in the released CoDi, where the innermost skip is
            overwritten by the output of the middle.
        first_step: what the weights call the lowest noise level: Stable Diffusion and the released
            CoDi count from 0.
        pooled_context: whether the step embedding also tells the prompt, so that every residual
            block knows it, and not only those that attend (Podell et al., 2023, SDXL).
        positions: in place of convolutions, blocks fully connected over all channels of this many
            positions, and no layer at either end (`codi.unets.text_unet`).
    """

    latent_channels: int
    channels: int
    context_width: int
    duration_s: float
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depth: int | tuple[int, ...] = 2
    attention: tuple[bool, ...] = (True, True, True, False)
    heads: int | None = None
    head_channels: int | None = None
    environment_width: int | None = None
    time_axis: TimeAxis = "none"
    kernel: tuple[int, int] = (3, 3)
    resample: bool = True
    groups: int = 32
    feed_forward_multiple: int = 4
    temporal: TemporalConfig | None = None
    group_channels: int = 2
    environment: EnvironmentForm = "sublayer"
    listening: tuple[bool, ...] | None = None
    skips: Literal["standard", "aliased"] = "standard"
    first_step: int = 1
    pooled_context: bool = False
    positions: int | None = None

    def __post_init__(self) -> None:
        """Check that every level has its entry.

        Raises:
            ValueError: for levels without one, or a fully connected UNet that changes channels.
        """
        for name, entries in (
            ("attention", self.attention),
            ("listening", self.listens),
            ("depth", self.depths),
        ):
            if len(entries) != len(self.multipliers):
                raise ValueError(
                    f"{name} names {len(entries)} levels and multipliers {len(self.multipliers)}; "
                    "give one entry for each level"
                )
        if self.positions and self.latent_channels != self.channels:
            raise ValueError(
                f"latent_channels is {self.latent_channels} and channels {self.channels}; "
                "a fully connected UNet needs both alike"
            )

    @property
    def depths(self) -> tuple[int, ...]:
        """Return the residual blocks of each level on the way down."""
        return (self.depth,) * len(self.multipliers) if isinstance(self.depth, int) else self.depth

    @property
    def listens(self) -> tuple[bool, ...]:
        """Return for each level whether its blocks listen to the environment."""
        return self.attention if self.listening is None else self.listening

    def build(self) -> UNet:
        """Return the network with fresh weights."""
        return UNet(self)


class UNet(nn.Module):
    """Predict from (z_t, t, context, environment) something of the shape of z_t."""

    reuses_inside = True
    """Whether `forward` can keep `DeepFeatures`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = self.config = config
        step_width = 4 * c.channels
        shared = BlockConfig(
            step_width=step_width,
            heads=c.heads,
            head_channels=c.head_channels,
            context_width=c.context_width,
            environment_width=c.environment_width,
            duration_s=c.duration_s,
            kernel=c.kernel,
            groups=c.groups,
            group_channels=c.group_channels,
            positions=c.positions,
            environment=c.environment,
            feed_forward_multiple=c.feed_forward_multiple,
            temporal=c.temporal,
        )
        widths = [c.channels * m for m in c.multipliers]
        last = len(widths) - 1
        self.step_embedding = StepEmbedding(c.channels, step_width, c.first_step)
        self.context_embedding = (
            PooledContext(c.context_width, step_width) if c.pooled_context else None
        )
        self.conv_in: nn.Module = (
            nn.Identity() if c.positions else conv(c.latent_channels, c.channels, c.kernel)
        )

        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        skips = [c.channels]
        now = c.channels
        for level, width in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(c.depths[level]):
                blocks.append(UNetBlock(now, width, c.attention[level], c.listens[level], shared))
                now = width
                skips.append(now)
            self.down.append(blocks)
            if level < last and c.resample:
                self.downsample.append(self._resampling(Downsample, now))
                skips.append(now)

        listens = c.environment == "sublayer"
        self.middle = nn.ModuleList(
            [
                UNetBlock(now, now, True, listens, shared),
                UNetBlock(now, now, False, False, shared),
            ]
        )

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            extra = 1 if level == 0 or c.resample else 0
            for _ in range(c.depths[level] + extra):
                attends, listens = c.attention[level], c.listens[level]
                blocks.append(UNetBlock(now + skips.pop(), widths[level], attends, listens, shared))
                now = widths[level]
            self.up.append(blocks)
            if level > 0 and c.resample:
                self.upsample.append(self._resampling(Upsample, now))

        self.norm_out = group_norm(now, c.groups, group_channels=c.group_channels)
        self.conv_out: nn.Module = (
            nn.Identity() if c.positions else zeroed(conv(now, c.latent_channels, c.kernel))
        )

    def _resampling(self, kind: type[Downsample | Upsample], channels: int) -> nn.Module:
        """Return the layer between two levels; fully connected, it keeps the size."""
        c = self.config
        if c.positions:
            return Dense(channels, channels, c.positions, c.positions)
        return kind(channels, c.kernel)

    def embed_step(self, t: Tensor) -> Tensor:
        """Return the embedding (B, D) of steps `t` (B,), which environment encoders may share."""
        return self.step_embedding(t)

    def prepare(self, context: Tensor, steps: Sequence[int] = ()) -> PreparedContext:
        """Return what this network computes of prompts (B, L, D) alone, for `forward` to take.

        The prediction is the same; what many evaluations with one prompt share is computed once.
        So is what is computed of `steps`, for evaluations at one of them (`PreparedContext.at`).
        """
        blocks = [block for block in self.modules() if isinstance(block, UNetBlock)]
        transformers = [block.transformer for block in blocks]
        readers = [found.cross_attention for found in transformers if found is not None]
        embed = self.context_embedding
        pooled = None if embed is None else embed(context)
        prepared = PreparedContext({reader: reader.project(context) for reader in readers}, pooled)
        if not steps:
            return prepared
        step = self.embed_step(torch.tensor(steps, device=context.device))[:, None]  # (S, 1, D)
        if pooled is not None:
            step = step + pooled
        residuals = [block.residual for block in blocks]
        shifts = {residual: residual.project(step).added for residual in residuals}
        return replace(
            prepared,
            by_step={
                t: {residual: Shift(added[i]) for residual, added in shifts.items()}
                for i, t in enumerate(steps)
            },
        )

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        context: Context,
        environment: Tensor | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """Return the prediction (B, C, F, H, W).

        Args:
            z_t: noisy latents (B, C, F, H, W).
            t: integer steps (B,); not read where `context` is prepared for a step (`at`).
            context: mixed prompt (B, L, D), or what `prepare` made of it.
            environment: what the other streams do (B, K, E); None when there are no others.
            deep: what to keep of the inside between evaluations; None computes all of it.
        """
        frames = z_t.shape[2]
        given = Conditioning(
            batch=len(z_t),
            step=self._step(t, context),
            context=context,
            environment=environment,
            frames=frames,
            slot_times_s=None
            if environment is None
            else slot_times(environment.shape[1], self.config.duration_s, z_t.device),
        )
        x = self.conv_in(z_t.transpose(1, 2).flatten(0, 1))  # (B * F, C, H, W)
        down, up = list(self._down(given)), list(self._up(given))
        inside = len(up) - OUTERMOST
        before = None if deep is None else deep.take(x)
        skips = [x]
        for layer in down if before is None else down[: OUTERMOST - 1]:
            x = layer(x)
            skips.append(x)
        if before is None:
            for block in self.middle:
                x = block(x, given, self._times(x, given))
            if self.config.skips == "aliased":
                skips[-1] = x
            for layer in up[:inside]:
                x = layer(torch.cat([x, skips.pop()], dim=1))
            if deep is not None:
                deep.keep(x)
        else:
            x = before
        for layer in up[inside:]:
            x = layer(torch.cat([x, skips.pop()], dim=1))
        x = self.conv_out(nn.functional.silu(self.norm_out(x)))
        return x.unflatten(0, (-1, frames)).transpose(1, 2)

    def _step(self, t: Tensor, context: Context) -> Tensor | None:
        """Return the embedding (B, D) of steps and prompts; None where the blocks were prepared."""
        if not isinstance(context, PreparedContext):
            embed = self.context_embedding
            return self.embed_step(t) if embed is None else self.embed_step(t) + embed(context)
        if context.shifts:
            return None
        return self.embed_step(t) if context.pooled is None else self.embed_step(t) + context.pooled

    def _down(self, given: Conditioning) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield the layers on the way down, each of which leaves a skip connection."""

        def through(block: UNetBlock, x: Tensor) -> Tensor:
            return block.listen(block(x, given, self._times(x, given)), given)

        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                yield partial(through, block)
            if level < len(self.downsample):
                yield self.downsample[level]

    def _up(self, given: Conditioning) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield the layers on the way up, each of which begins with a skip connection."""

        def through(block: UNetBlock, upsample: nn.Module | None, x: Tensor) -> Tensor:
            x = block(x, given, self._times(x, given))
            return block.listen(x if upsample is None else upsample(x), given)

        for level, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                ends = block is blocks[-1] and level < len(self.upsample)  # type: ignore[index]
                yield partial(through, block, self.upsample[level] if ends else None)

    def _times(self, x: Tensor, given: Conditioning) -> Tensor | None:
        """Return the instants of the positions of `x`, where someone will ask for them."""
        if given.environment is None:
            return None
        height, width = x.shape[2:]
        c = self.config
        return position_times(c.time_axis, given.frames, height, width, c.duration_s, x.device)
