"""The blocks of the diffusion UNet that need the prompt and the environment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codi.nn.attention import Attention, EnvironmentAttention, FeedForward
from codi.nn.conv import Kernel, ResBlock, group_norm, zeroed
from codi.nn.embedding import frame_times, slot_times
from codi.nn.temporal import TemporalBlock


@dataclass(frozen=True)
class Conditioning:
    """What every block of one UNet evaluation reads, computed once per evaluation.

    Attributes:
        step: embedding of the diffusion step, (B * F, D).
        context: the mixed prompt, (B, L, D).
        environment: what the other streams are doing, (B, K, E), or None when alone.
        frames: F, the number of frames folded into the batch.
        slot_times_s: (K,) centres of the environment's slots in seconds, or None.
    """

    step: Tensor
    context: Tensor
    environment: Tensor | None
    frames: int
    slot_times_s: Tensor | None


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
        feed_forward_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps=1e-6)
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
        batch, frames = given.context.shape[0], given.frames
        height, width = x.shape[2:]
        hidden = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # (B * F, H * W, C)
        normed = self.self_norm(hidden)
        hidden = hidden + self.self_attention(normed, normed)
        hidden = hidden.unflatten(0, (batch, frames)).flatten(1, 2)  # (B, F * H * W, C)
        hidden = hidden + self.cross_attention(self.cross_norm(hidden), given.context)
        if self.environment_attention is not None and given.environment is not None:
            hidden = hidden + self.environment_attention(
                hidden, given.environment, times_s, given.slot_times_s
            )
        hidden = hidden + self.feed_forward(hidden)
        hidden = hidden.unflatten(1, (frames, height * width)).flatten(0, 1)
        hidden = hidden.transpose(1, 2).unflatten(2, (height, width))
        return x + self.proj_out(hidden)


@dataclass(frozen=True)
class TemporalConfig:
    """Temporal blocks of a UNet that also denoises clips (CoDi, A.2)."""

    shift_chunks: int = 8
    shift_kernel: int = 3


@dataclass(frozen=True)
class BlockConfig:
    """What all blocks of one UNet have in common."""

    step_width: int
    heads: int | None
    head_channels: int | None
    context_width: int
    environment_width: int | None
    duration_s: float
    kernel: Kernel
    groups: int
    feed_forward_multiple: int
    temporal: TemporalConfig | None

    def split(self, channels: int) -> tuple[int, int]:
        """Return (heads, channels per head) for a layer of `channels`."""
        if self.heads is not None:
            return self.heads, self.head_channels or channels // self.heads
        if self.head_channels is None:
            raise ValueError("a UNet needs `heads` or `head_channels`; give one of them")
        return max(channels // self.head_channels, 1), self.head_channels


class UNetBlock(nn.Module):
    """Temporal block, residual block, transformer: the order of CoDi, A.2 and Figure 7."""

    def __init__(self, source: int, target: int, attends: bool, config: BlockConfig) -> None:
        super().__init__()
        c = config
        self.temporal = (
            TemporalBlock(
                source,
                *c.split(source),
                duration_s=c.duration_s,
                shift_chunks=c.temporal.shift_chunks,
                shift_kernel=c.temporal.shift_kernel,
                groups=c.groups,
            )
            if c.temporal
            else None
        )
        self.residual = ResBlock(source, target, c.step_width, c.kernel, c.groups)
        self.transformer = (
            SpatialTransformer(
                target,
                *c.split(target),
                context_width=c.context_width,
                environment_width=c.environment_width,
                groups=c.groups,
                feed_forward_multiple=c.feed_forward_multiple,
            )
            if attends
            else None
        )

    def forward(self, x: Tensor, given: Conditioning, times_s: Tensor | None) -> Tensor:
        """Return (B * F, C', H, W); a single picture passes by the temporal block."""
        if self.temporal is not None and given.frames > 1:
            x = self.temporal(x, given.frames)
        x = self.residual(x, given.step)
        if self.transformer is not None:
            x = self.transformer(x, given, times_s)
        return x


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
