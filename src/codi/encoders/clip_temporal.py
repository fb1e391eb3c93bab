"""What the released CoDi adds to every layer of CLIP's vision tower, so that it can see clips.

A block attends across the frames of each patch, between the layer's attention and its feed-forward.
It knows no tower: it takes states (B, F, L, C) of F frames with L tokens each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from codi.nn.attention import attend
from codi.nn.conv import zeroed
from codi.nn.temporal import HIDDEN, ClampedNorm, frame_distances, standardise


class FrameDistanceBias(nn.Module):
    """Score every pair of frames for each head by how far apart they are, by a small network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.from_distance = nn.Linear(1, width)
        self.hidden = nn.Linear(width, width)
        self.to_heads = nn.Linear(width, heads)

    def forward(self, frames: int) -> Tensor:
        """Return the bias (heads, F, F) of queries (rows) to keys."""
        weight = self.from_distance.weight
        distances = frame_distances(frames, weight.device).to(weight.dtype)
        hidden = silu(self.from_distance(distances[..., None]))
        return self.to_heads(silu(self.hidden(hidden))).permute(2, 0, 1)


class ClipTemporalBlock(nn.Module):
    """Let the frames of a clip see each other: attention, then a gated feed-forward layer.

    Both outputs start at zero, so that a tower with fresh blocks is the tower without them. The
    released CoDi also turns what is not a number into one, here; numbers are not changed by it, and
    the pipeline would rather report the others.

    Args:
        width: channels C, heads: of the attention.
        frames: length of the two tables of embeddings that the released weights contain and never
            add to anything; 0 leaves them out.
    """

    def __init__(self, width: int, heads: int, frames: int = 0) -> None:
        super().__init__()
        inner = int(width * HIDDEN)
        self.heads = heads
        # Over the frames, (..., F, C): meant as a layer norm over the channels, it runs over time
        # in the released CoDi, whose weights expect that.
        self.norm = ClampedNorm(width, axis=-2)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = zeroed(nn.Linear(width, width, bias=False))
        self.bias = FrameDistanceBias(width // 2, heads)
        self.to_hidden = nn.Linear(width, 2 * inner, bias=False)
        self.hidden_gain = nn.Parameter(torch.ones(inner))
        self.from_hidden = zeroed(nn.Linear(inner, width, bias=False))
        if frames:
            self.frame_position = nn.Parameter(torch.zeros(frames, width))
            self.frame_rate = nn.Parameter(torch.zeros(frames, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return states (B, F, L, C) of states (B, F, L, C)."""
        x = x + self._attended(x.transpose(1, 2)).transpose(1, 2)
        return x + self._fed_forward(x)

    def _attended(self, x: Tensor) -> Tensor:
        """Return the residual (B, L, F, C) of attention across frames."""
        normed = self.norm(x)
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(-2, -3)  # (B, L, heads, F, d)
            for y in (self.to_q(normed), *self.to_kv(normed).chunk(2, dim=-1))
        )
        attended = attend(q, k, v, self.bias(x.shape[-2]))
        return self.to_out(attended.transpose(-2, -3).flatten(-2))

    def _fed_forward(self, x: Tensor) -> Tensor:
        value, gate = self.to_hidden(x).float().chunk(2, dim=-1)
        hidden = standardise(value * gelu(gate), -1).to(x.dtype)
        return self.from_hidden(hidden * self.hidden_gain)
