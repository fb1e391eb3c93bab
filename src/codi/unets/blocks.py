"""The blocks of the diffusion UNet that need the prompt and the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from codi.nn.attention import Attention, EnvironmentAttention, FeedForward, Projected
from codi.nn.conv import ResBlock, Shift, group_norm, zeroed
from codi.nn.embedding import frame_times, slot_times
from codi.nn.residual import ResidualConfig, ResidualInTime
from codi.unets.prepared import Context, PreparedContext

EnvironmentForm = Literal["sublayer", "transformer"]


@dataclass(frozen=True)
class Conditioning:
    """What every block of one UNet evaluation reads, computed once per evaluation.

    Attributes:
        batch: B, the number of samples.
        step: embedding of the diffusion step, (B, D); None where the prepared context has all that
            is computed of it.
        context: the mixed prompt, (B, L, D) or prepared.
        environment: what the other streams are doing, (B, K, E), or None when alone.
        frames: F, the number of frames folded into the batch.
        slot_times_s: (K,) centres of the environment's slots in seconds, or None.
    """

    batch: int
    step: Tensor | None
    context: Context
    environment: Tensor | None
    frames: int
    slot_times_s: Tensor | None

    def step_of(self, block: ResBlock) -> Tensor | Shift:
        """Return the step as one residual block takes it."""
        if self.step is not None:
            return self.step
        assert isinstance(self.context, PreparedContext)
        return self.context.shifts[block]

    def source(self, attention: Attention) -> Tensor | Projected:
        """Return the prompt as one attention takes it."""
        if isinstance(self.context, PreparedContext):
            return self.context.projected[attention]
        return self.context


class SpatialTransformer(nn.Module):
    """Self-attention, attention to the prompt, to the environment, then feed-forward.

    Works on one picture at a time, except for the environment, which all frames read together
    because each of them has its own instant.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_width: int,
        context_width: int,
        environment_width: int | None,
        groups: int = 32,
        group_channels: int = 2,
        feed_forward_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps=1e-6, group_channels=group_channels)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.self_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, channels, heads, head_width)
        self.cross_norm = nn.LayerNorm(channels)
        self.cross_attention = Attention(channels, context_width, heads, head_width)
        self.environment_attention = (
            EnvironmentAttention(channels, environment_width, heads, head_width)
            if environment_width
            else None
        )
        self.feed_forward = FeedForward(channels, feed_forward_multiple)
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, given: Conditioning, times_s: Tensor | None) -> Tensor:
        """Return (B * F, C, H, W); `times_s` (F * H * W,) is the instant of each position."""
        batch, frames = given.batch, given.frames
        height, width = x.shape[2:]
        hidden = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # (B * F, H * W, C)
        normed = self.self_norm(hidden)
        hidden = hidden + self.self_attention(normed, normed)
        hidden = hidden.unflatten(0, (batch, frames)).flatten(1, 2)  # (B, F * H * W, C)
        prompt = given.source(self.cross_attention)
        hidden = hidden + self.cross_attention(hidden, prompt, norm=self.cross_norm)
        if self.environment_attention is not None and given.environment is not None:
            hidden = hidden + self.environment_attention(
                hidden, given.environment, times_s, given.slot_times_s
            )
        hidden = hidden + self.feed_forward(hidden)
        hidden = hidden.unflatten(1, (frames, height * width)).flatten(0, 1)
        hidden = hidden.transpose(1, 2).unflatten(2, (height, width))
        return x + self.proj_out(hidden)


@dataclass(frozen=True)
class BlockConfig(ResidualConfig):
    """What all blocks of one UNet have in common.

    Attributes:
        context_width: D of the prompt's context; environment_width: E, or None for none.
        environment: form of the attention to the environment, see `UNetConfig`.
    """

    context_width: int
    environment_width: int | None
    environment: EnvironmentForm
    feed_forward_multiple: int

    def transformer(
        self, channels: int, context_width: int, environment_width: int | None
    ) -> SpatialTransformer:
        """Return a transformer on `channels`."""
        return SpatialTransformer(
            channels,
            *self.split(channels),
            context_width=context_width,
            environment_width=environment_width,
            groups=self.groups,
            group_channels=self.group_channels,
            feed_forward_multiple=self.feed_forward_multiple,
        )


class UNetBlock(ResidualInTime):
    """Residual block in time, transformer: the order of CoDi, A.2 and Figure 7.

    The attention to the environment is a sublayer of the transformer, or a transformer of its own
    (the released CoDi's `connecters_in`), which the UNet calls through `listen`, as it stands after
    a change of resolution.
    """

    def __init__(
        self, source: int, target: int, attends: bool, listens: bool, config: BlockConfig
    ) -> None:
        super().__init__(source, target, config)
        c = config
        apart = c.environment == "transformer"
        heard = c.environment_width if listens else None
        self.transformer = (
            c.transformer(target, c.context_width, None if apart else heard) if attends else None
        )
        self.environment_attention = c.transformer(target, heard, None) if apart and heard else None

    def forward(self, x: Tensor, given: Conditioning, times_s: Tensor | None) -> Tensor:
        """Return (B * F, C', H, W)."""
        x = self.over_frames(x, given.step_of(self.residual), given.frames)
        if self.transformer is not None:
            x = self.transformer(x, given, times_s)
        return x

    def listen(self, x: Tensor, given: Conditioning) -> Tensor:
        """Return `x` (B * F, C', H, W) after a transformer of its own for the environment."""
        if self.environment_attention is None or given.environment is None:
            return x
        return self.environment_attention(
            x, replace(given, context=given.environment, environment=None), None
        )


def position_times(
    axis: str, frames: int, height: int, width: int, duration_s: float, device: torch.device
) -> Tensor | None:
    """Return the instant (F * H * W,) in seconds of every position, or None where there is none.

    `axis` says which axis is time: "frame" (frame i is the instant i / fps; a single picture has no
    time), "height" (rows of a spectrogram, timed at their centre) or "none".
    """
    if axis == "height":
        rows = slot_times(height, duration_s, device)
        return rows.repeat_interleave(width).repeat(frames)
    if axis == "frame" and frames > 1:
        return frame_times(frames, duration_s, device).repeat_interleave(height * width)
    return None
