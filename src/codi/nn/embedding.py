"""Sinusoidal embeddings of diffusion steps and of physical time.

They know no modality: a step is an integer, a time is a number of seconds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codi.nn.conv import zeroed


def sinusoidal_embedding(position: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Return the [cos, sin] features (..., width) of `position` (...) (Vaswani et al., 2017).

    >>> sinusoidal_embedding(torch.tensor([0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    half = width // 2
    rates = torch.exp(
        -math.log(max_period)
        * torch.arange(half, device=position.device, dtype=torch.float32)
        / half
    )
    angles = position[..., None].float() * rates
    features = torch.cat([angles.cos(), angles.sin()], dim=-1)
    if width % 2:
        features = nn.functional.pad(features, (0, 1))
    return features


class StepEmbedding(nn.Module):
    """Embed a diffusion step t (B,) as a vector (B, D), as in DDPM and Stable Diffusion.

    `first` is what the weights call the lowest noise level, t = 1: they may count from 0. Those
    have no name for clean data, t = 0, which they are told is the lowest level.
    """

    def __init__(self, channels: int, width: int, first: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.first = first
        self.layers = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding (B, D) of the steps `t` (B,)."""
        features = sinusoidal_embedding((t + (self.first - 1)).clamp(min=0), self.channels)
        return self.layers(features.to(next(self.layers.parameters()).dtype))


class PooledContext(nn.Module):
    """Embed a prompt's context (B, L, D) as a vector (B, D') beside the step embedding.

    The mean of its tokens goes through two layers of which the last begins at zero, so that a
    network that gains this one begins as it was.
    """

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(context_width, width), nn.SiLU(), zeroed(nn.Linear(width, width))
        )

    def forward(self, context: Tensor) -> Tensor:
        """Return the embedding (B, D') of `context` (B, L, D)."""
        return self.layers(context.mean(1))


def frame_times(count: int, duration_s: float, device: torch.device | None = None) -> Tensor:
    """Return the instants (F,) in seconds of `count` frames: frame i is the instant i / fps."""
    return torch.arange(count, device=device, dtype=torch.float32) * (duration_s / count)


def slot_times(count: int, duration_s: float, device: torch.device | None = None) -> Tensor:
    """Return the centres (K,) in seconds of `count` equal intervals of the clip."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (duration_s / count)
