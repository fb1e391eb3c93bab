"""The default model's image and video prompt encoder: convolutions, then attention over time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codi.encoders.base import PromptEncoder
from codi.nn.attention import TransformerLayer
from codi.nn.conv import ConvFeatures


@dataclass(frozen=True)
class VisionEncoderConfig:
    """Shape of the vision prompt encoder.

    `grid` is the size to which the last map is pooled before it is flattened; `layers` transformer
    layers look across frames. Pictures have `in_channels`: 3 of colour, 1 of a map.
    """

    context_width: int
    in_channels: int = 3
    widths: tuple[int, ...] = (32, 64, 128)
    patch: int = 2
    grid: int = 4
    width: int = 192
    heads: int = 4
    layers: int = 1
    frames: int = 16

    def build(self) -> VisionEncoder:
        """Return the encoder with fresh weights."""
        return VisionEncoder(self)


class VisionEncoder(PromptEncoder):
    """Embed pictures (F = 1) or clips (B, C, F, H, W) with values in [-1, 1]."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config.width, config.context_width)
        c = self.config = config
        self.convolutions = ConvFeatures(c.in_channels, c.widths, c.patch)
        self.pool = nn.AdaptiveAvgPool2d(c.grid)
        self.to_width = nn.Linear(c.widths[-1] * c.grid**2, c.width)
        self.position = nn.Parameter(torch.randn(c.frames, c.width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(c.width, c.heads) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, D') of pictures or clips (B, C, F, H, W)."""
        frames = x.shape[2]
        maps = self.convolutions(x.transpose(1, 2).flatten(0, 1))
        sequence = self.to_width(self.pool(maps).flatten(1)).unflatten(0, (-1, frames))
        sequence = sequence + self.position[:frames]
        for layer in self.layers:
            sequence = layer(sequence)
        return self.norm(sequence.mean(1))
