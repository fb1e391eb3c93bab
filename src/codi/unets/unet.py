"""The diffusion UNet on latents (B, C, F, H, W).

An image has F = 1, a clip F = n, a spectrogram F = 1 with time along H, and a sentence F = H = 1
(see `codi.unets.text_unet`). It predicts whatever it is trained to predict; it does not know noise
schedules, guidance, or which modality it denoises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codi.nn.conv import Downsample, Upsample, conv, group_norm, zeroed
from codi.nn.embedding import StepEmbedding, slot_times
from codi.types import TimeAxis
from codi.unets.blocks import (
    BlockConfig,
    Conditioning,
    TemporalConfig,
    UNetBlock,
    position_times,
)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet.

    Attributes:
        latent_channels: C of the latent it reads and writes.
        channels: channels of the first level; `multipliers` gives those of every level.
        depth: residual blocks per level.
        attention: for each level, whether its blocks attend (to themselves, prompt, environment).
        heads, head_channels: heads of every attention, by count, by width, or both.
        context_width: D of the prompt's context; environment_width: E, or None for none.
        time_axis: which axis of the latent is time; duration_s: how long the clip is.
        kernel: of the residual blocks' convolutions; resample: whether levels change resolution.
        temporal: temporal blocks before every residual block, for clips.
    """

    latent_channels: int
    channels: int
    context_width: int
    duration_s: float
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
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

    def build(self) -> UNet:
        """Return the network with fresh weights."""
        return UNet(self)


class UNet(nn.Module):
    """Predict from (z_t, t, context, environment) something of the shape of z_t."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = self.config = config
        if len(c.attention) != len(c.multipliers):
            raise ValueError(
                f"attention names {len(c.attention)} levels and multipliers {len(c.multipliers)}; "
                "give one entry for each level"
            )
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
            feed_forward_multiple=c.feed_forward_multiple,
            temporal=c.temporal,
        )
        widths = [c.channels * m for m in c.multipliers]
        last = len(widths) - 1
        self.step_embedding = StepEmbedding(c.channels, step_width)
        self.conv_in = conv(c.latent_channels, c.channels, c.kernel)

        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        skips = [c.channels]
        now = c.channels
        for level, width in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(c.depth):
                blocks.append(UNetBlock(now, width, c.attention[level], shared))
                now = width
                skips.append(now)
            self.down.append(blocks)
            if level < last and c.resample:
                self.downsample.append(Downsample(now, c.kernel))
                skips.append(now)

        self.middle = nn.ModuleList(
            [UNetBlock(now, now, True, shared), UNetBlock(now, now, False, shared)]
        )

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            extra = 1 if level == 0 or c.resample else 0
            for _ in range(c.depth + extra):
                blocks.append(
                    UNetBlock(now + skips.pop(), widths[level], c.attention[level], shared)
                )
                now = widths[level]
            self.up.append(blocks)
            if level > 0 and c.resample:
                self.upsample.append(Upsample(now, c.kernel))

        self.norm_out = group_norm(now, c.groups)
        self.conv_out = zeroed(conv(now, c.latent_channels, c.kernel))

    def forward(
        self, z_t: Tensor, t: Tensor, context: Tensor, environment: Tensor | None = None
    ) -> Tensor:
        """Return the prediction (B, C, F, H, W).

        Args:
            z_t: noisy latents (B, C, F, H, W).
            t: integer steps (B,).
            context: mixed prompt (B, L, D).
            environment: what the other streams do (B, K, E); None when there are no others.
        """
        frames = z_t.shape[2]
        step = self.step_embedding(t)
        given = Conditioning(
            step=step.repeat_interleave(frames, dim=0),
            context=context,
            environment=environment,
            frames=frames,
            slot_times_s=None
            if environment is None
            else slot_times(environment.shape[1], self.config.duration_s, z_t.device),
        )
        x = self.conv_in(z_t.transpose(1, 2).flatten(0, 1))  # (B * F, C, H, W)
        skips = [x]
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, given, self._times(x, given))
                skips.append(x)
            if level < len(self.downsample):
                x = self.downsample[level](x)
                skips.append(x)
        for block in self.middle:
            x = block(x, given, self._times(x, given))
        for level, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], dim=1), given, self._times(x, given))
            if level < len(self.upsample):
                x = self.upsample[level](x)
        x = self.conv_out(nn.functional.silu(self.norm_out(x)))
        return x.unflatten(0, (-1, frames)).transpose(1, 2)

    def _times(self, x: Tensor, given: Conditioning) -> Tensor | None:
        """Return the instants of the positions of `x`, where someone will ask for them."""
        if given.environment is None:
            return None
        height, width = x.shape[2:]
        c = self.config
        return position_times(c.time_axis, given.frames, height, width, c.duration_s, x.device)
