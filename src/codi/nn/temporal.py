"""Temporal attention and temporal shift (CoDi, section 3.3, A.2, Figures 6 and 7).

Pictures of one clip are folded into the batch, (B * F, C, H, W); everything here needs to know F
to unfold them. A single picture (F = 1) never comes here: the caller skips the block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codi.nn.attention import Attention
from codi.nn.conv import conv, group_norm, zeroed
from codi.nn.embedding import frame_times, sinusoidal_embedding


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
        shift_chunks: int = 8,
        shift_kernel: int = 3,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.duration_s = duration_s
        self.shift_chunks = shift_chunks
        self.position = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, channels, heads, head_width)
        zeroed(self.attention.to_out)
        self.shift_norm = group_norm(channels, groups)
        self.shift_conv = zeroed(conv(channels, channels, (shift_kernel, shift_kernel)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return (B * F, C, H, W) for `x` (B * F, C, H, W) and F = `frames`."""
        x = x + self._attend(x, frames)
        hidden = self.shift_conv(nn.functional.silu(self.shift_norm(x)))
        hidden = temporal_shift(hidden.unflatten(0, (-1, frames)), self.shift_chunks)
        return x + hidden.flatten(0, 1)

    def _attend(self, x: Tensor, frames: int) -> Tensor:
        height, width = x.shape[2:]
        clip = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 1, 2)  # (B, H, W, F, C)
        sequence = clip.reshape(-1, frames, x.shape[1])  # (B * H * W, F, C)
        # Milliseconds spread the sinusoids over the useful range.
        time = sinusoidal_embedding(
            1000.0 * frame_times(frames, self.duration_s, x.device), x.shape[1]
        )
        sequence = self.norm(sequence) + self.position(time.to(x.dtype))
        attended = self.attention(sequence, sequence)
        attended = attended.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2)
        return attended.reshape(x.shape)
