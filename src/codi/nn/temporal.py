"""Temporal attention and temporal shift (CoDi, section 3.3, A.2, Figures 6 and 7).

Pictures of one clip are folded into the batch, (B * F, C, H, W); everything here needs to know F
to unfold them. A single picture (F = 1) does not come here: the caller skips the block. The
released CoDi's block differs from the paper's, and every difference is a field of `TemporalConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from codi.nn.attention import Attention
from codi.nn.conv import conv, group_norm, zeroed
from codi.nn.embedding import frame_times, sinusoidal_embedding

HIDDEN = 8 / 3
"""Width of the released CoDi's temporal feed-forward over that of the block."""


def temporal_shift(x: Tensor, chunks: int = 8) -> Tensor:
    """Shift channel chunk i of `x` (B, F, C, ...) forward by i frames, filling with zeros.

    CoDi, section 3.3: the hidden dimension is divided into k = 8 chunks and chunk i = 0..7 moves
    forward by i positions (Figure 6). Chunks that would move past the clip's end are all zeros.

    >>> temporal_shift(torch.arange(1, 7).reshape(1, 3, 2), chunks=2)[0]
    tensor([[1, 0],
            [3, 2],
            [5, 4]])
    """
    frames = x.shape[1]
    shifted = []
    for i, chunk in enumerate(x.chunk(chunks, dim=2)):
        by = min(i, frames)
        padding = torch.zeros_like(chunk[:, :by])
        shifted.append(torch.cat([padding, chunk[:, : frames - by]], dim=1))
    return torch.cat(shifted, dim=2)


@dataclass(frozen=True)
class TemporalConfig:
    """Temporal blocks of a network that also denoises clips (CoDi, A.2).

    The defaults are the paper's; the other choices are the released CoDi's.

    Attributes:
        shift_chunks, shift_kernel: k of the temporal shift, and the convolution before it.
        place: "before" the residual block (Figure 7) or "after" it.
        position: how frames are told apart: by their time in "seconds", or by "index": learned
            tables of frames and frame rates, and a learned bias of their distance.
        norm: what attention's input is normalised over: "channels", or "time" (per channel).
        feed_forward: whether a feed-forward layer with a shift of its own follows attention.
        fused: keys and values by one matrix, and no bias of the output.
        heads: of the attention; the other attentions' when None. With `head_divisor` d a head of C
            channels is C / d wide.
        frame_rate, frames: row of the table of rates (from 1), and rows of both tables.
        alone: what a latent of one frame is: a "picture", which passes by the block, or a "clip".
            The released code tells them by the number of axes, which are the same here.
    """

    shift_chunks: int = 8
    shift_kernel: int = 3
    place: Literal["before", "after"] = "before"
    position: Literal["seconds", "index"] = "seconds"
    norm: Literal["channels", "time"] = "channels"
    feed_forward: bool = False
    fused: bool = False
    heads: int | None = None
    head_divisor: int | None = None
    frame_rate: int = 4
    frames: int = 30
    alone: Literal["picture", "clip"] = "picture"

    def split(self, channels: int, otherwise: Callable[[int], tuple[int, int]]) -> tuple[int, int]:
        """Return (heads, channels per head); those of `otherwise` where this does not say."""
        if self.heads is None:
            heads, width = otherwise(channels)
        else:
            heads, width = self.heads, max(channels // self.heads, 1)
        return heads, width if self.head_divisor is None else channels // self.head_divisor


def standardise(x: Tensor, axis: int) -> Tensor:
    """Return `x` with mean 0 and variance 1 along `axis`.

    The variance is held at `eps` at least, rather than `eps` added, and `eps` depends on the
    precision, as in the released CoDi.
    """
    eps = 1e-5 if x.dtype == torch.float32 else 1e-3
    x = x - x.mean(axis, keepdim=True)
    variance = x.square().mean(axis, keepdim=True)  # var_mean is ten times slower
    return x * variance.clamp(min=eps).rsqrt()


def frame_distances(frames: int, device: torch.device) -> Tensor:
    """Return sign(d) log(|d| + 1), (F, F) float32, of the distance d from each frame to each."""
    index = torch.arange(frames, device=device, dtype=torch.float32)
    distance = index[:, None] - index[None, :]
    return distance.sign() * (distance.abs() + 1).log()


class ClampedNorm(nn.Module):
    """Normalise along one axis (`standardise`) with a gain for each channel, the last axis."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x` (..., C)."""
        return standardise(x, self.axis) * self.gain


class FramePosition(nn.Module):
    """Tell frames apart by their index, as the released CoDi does.

    A row of a table for the frame and one for the frame rate are added to what attention reads; a
    small network turns the distance of two frames into a bias for each head.
    """

    def __init__(self, channels: int, heads: int, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        self.frame = nn.Parameter(torch.randn(config.frames, channels))
        self.rate = nn.Parameter(torch.randn(config.frames, channels))
        hidden = channels // 2
        self.to_bias = nn.Sequential(
            nn.Linear(1, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, heads),
        )  # fmt: skip

    def forward(self, frames: int) -> Tensor:
        """Return what is added to each frame, (F, C).

        Raises:
            ValueError: more frames than the table has.
        """
        c = self.config
        if frames > c.frames:
            raise ValueError(f"{frames} frames, but the table has {c.frames}; make shorter clips")
        return self.frame[:frames] + self.rate[c.frame_rate - 1]

    def bias(self, frames: int) -> Tensor:
        """Return the score offsets (heads, F, F) from frame to frame."""
        distances = frame_distances(frames, self.frame.device).to(self.frame.dtype)
        return self.to_bias(distances[..., None]).permute(2, 0, 1)


class ShiftedFeedForward(nn.Module):
    """Gated feed-forward over channels whose second half comes from the frame before.

    The released CoDi's; its output starts at zero here, so that it starts as nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * HIDDEN)
        self.to_hidden = nn.Linear(channels, 2 * hidden, bias=False)
        self.norm = ClampedNorm(hidden, axis=-1)
        self.to_out = zeroed(nn.Linear(hidden, channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual (N, F, C) for `x` (N, F, C)."""
        # Wide up to the norm, as in the released code: its eps is another one in 16 bits.
        value, gate = self.to_hidden(x).float().chunk(2, dim=-1)
        hidden = self.norm(temporal_shift(value * gelu(gate), chunks=2))
        return self.to_out(hidden.to(x.dtype))


class TemporalBlock(nn.Module):
    """Let the frames of a clip see each other: attention over time, then a convolution and shift.

    Height and width are folded into the batch for the attention (VDM; CoDi, A.2). The convolution
    before the shift starts at zero, as does the attention's output, so a video model initialised
    from an image model starts as that image model applied to every frame.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_width: int,
        duration_s: float,
        config: TemporalConfig = TemporalConfig(),
        groups: int = 32,
        group_channels: int = 2,
    ) -> None:
        super().__init__()
        c = config
        self.duration_s = duration_s
        self.shift_chunks = c.shift_chunks
        self.position: nn.Linear | FramePosition = (
            FramePosition(channels, heads, c)
            if c.position == "index"
            else nn.Linear(channels, channels)
        )
        self.norm = ClampedNorm(channels, axis=1) if c.norm == "time" else nn.LayerNorm(channels)
        self.attention = Attention(channels, channels, heads, head_width, fused=c.fused)
        zeroed(self.attention.to_out)
        self.feed_forward = ShiftedFeedForward(channels) if c.feed_forward else None
        self.shift_norm = group_norm(channels, groups, group_channels=group_channels)
        self.shift_conv = zeroed(conv(channels, channels, (c.shift_kernel, c.shift_kernel)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return (B * F, C, H, W) for `x` (B * F, C, H, W) and F = `frames`."""
        height, width = x.shape[2:]
        clip = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2)  # (B, H, W, F, C)
        # One copy, (B * H * W, F, C): of a view, every linear layer below makes a copy of its own,
        # and torch may even repeat the weights for each position.
        sequence = clip.reshape(-1, frames, x.shape[1]).contiguous()
        sequence = sequence + self.attend(sequence)
        if self.feed_forward is not None:
            sequence = sequence + self.feed_forward(sequence)
        clip = sequence.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2)
        x = clip.reshape(x.shape)
        hidden = self.shift_conv(silu(self.shift_norm(x)))
        hidden = temporal_shift(hidden.unflatten(0, (-1, frames)), self.shift_chunks)
        return x + hidden.flatten(0, 1)

    def attend(self, sequence: Tensor) -> Tensor:
        """Return the residual of the attention over time, (N, F, C) for (N, F, C)."""
        frames, channels = sequence.shape[1:]
        if isinstance(self.position, FramePosition):
            sequence = self.norm(sequence + self.position(frames))
            return self.attention(sequence, sequence, self.position.bias(frames))
        # Milliseconds spread the sinusoids over the useful range.
        time = sinusoidal_embedding(
            1000.0 * frame_times(frames, self.duration_s, sequence.device), channels
        )
        sequence = self.norm(sequence) + self.position(time.to(sequence.dtype))
        return self.attention(sequence, sequence)
