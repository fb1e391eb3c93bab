"""Residual blocks of networks that see single pictures and clips alike.

They know the diffusion step and the frames, and no prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from codi.nn.conv import Kernel, ResBlock, Shift
from codi.nn.temporal import TemporalBlock, TemporalConfig


@dataclass(frozen=True)
class ResidualConfig:
    """What all residual blocks of one network have in common.

    Attributes:
        step_width: D of the step embedding.
        heads, head_channels: heads of every attention, by count, by width, or both.
        duration_s: how long a clip is.
        kernel, groups, group_channels: of the residual blocks' convolutions and norms.
        positions: fully connected blocks on maps of this many positions, in place of convolutions.
        temporal: temporal blocks, for clips.
    """

    step_width: int
    heads: int | None
    head_channels: int | None
    duration_s: float
    kernel: Kernel
    groups: int
    group_channels: int
    positions: int | None
    temporal: TemporalConfig | None

    def split(self, channels: int) -> tuple[int, int]:
        """Return (heads, channels per head) for a layer of `channels`.

        Raises:
            ValueError: neither of them is given.
        """
        if self.heads is not None:
            return self.heads, self.head_channels or channels // self.heads
        if self.head_channels is None:
            raise ValueError("a UNet needs `heads` or `head_channels`; give one of them")
        return max(channels // self.head_channels, 1), self.head_channels


class ResidualInTime(nn.Module):
    """Residual block with a temporal block before it (CoDi, A.2, Figure 7) or after it."""

    def __init__(self, source: int, target: int, config: ResidualConfig) -> None:
        super().__init__()
        c = config
        self.positions = c.positions
        self.passes_pictures = c.temporal is not None and c.temporal.alone == "picture"
        self.temporal_first = c.temporal is not None and c.temporal.place == "before"
        channels = source if self.temporal_first else target
        self.temporal = (
            TemporalBlock(
                channels,
                *c.temporal.split(channels, c.split),
                duration_s=c.duration_s,
                config=c.temporal,
                groups=c.groups,
                group_channels=c.group_channels,
            )
            if c.temporal
            else None
        )
        # Fully connected: all channels of all positions are the channels of one vector.
        width, kernel = (c.positions, None) if c.positions else (1, c.kernel)
        self.residual = ResBlock(
            source * width,
            target * width,
            c.step_width,
            kernel,
            c.groups,
            group_channels=c.group_channels,
        )

    def over_frames(self, x: Tensor, step: Tensor | Shift, frames: int) -> Tensor:
        """Return (B * F, C', H, W); a single picture passes by the temporal block.

        What a latent of one frame is, a picture or a clip, says `TemporalConfig.alone`.
        """
        temporal = None if frames == 1 and self.passes_pictures else self.temporal
        if temporal is not None and self.temporal_first:
            x = temporal(x, frames)
        if self.positions:
            x = self.residual(x.flatten(1), step).unflatten(1, (-1, 1, self.positions))
        else:
            x = self.residual(x, step)
        if temporal is not None and not self.temporal_first:
            x = temporal(x, frames)
        return x
