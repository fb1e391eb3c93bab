"""The default model's audio prompt encoder: convolutions on a log-mel spectrogram."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codi.audio import MelConfig, log_mel
from codi.encoders.base import PromptEncoder
from codi.nn.attention import TransformerLayer
from codi.nn.conv import ConvFeatures


@dataclass(frozen=True)
class SoundEncoderConfig:
    """Shape of the audio prompt encoder; `columns` is the most time steps it looks across."""

    mel: MelConfig
    context_width: int
    widths: tuple[int, ...] = (32, 64, 128)
    patch: int = 2
    width: int = 192
    heads: int = 4
    layers: int = 1
    columns: int = 16

    def build(self) -> SoundEncoder:
        """Return the encoder with fresh weights."""
        return SoundEncoder(self)


class SoundEncoder(PromptEncoder):
    """Embed waveforms (B, S) in [-1, 1]."""

    def __init__(self, config: SoundEncoderConfig) -> None:
        super().__init__(config.width, config.context_width)
        c = self.config = config
        self.convolutions = ConvFeatures(1, c.widths, c.patch)
        factor = c.patch * 2 ** len(c.widths)
        self.to_width = nn.Linear(c.widths[-1] * (c.mel.bins // factor), c.width)
        self.pool = nn.AdaptiveAvgPool1d(c.columns)
        self.position = nn.Parameter(torch.randn(c.columns, c.width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(c.width, c.heads) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, D') of waveforms (B, S)."""
        mel = (log_mel(x, self.config.mel) + 6.0) / 4.0  # (B, 1, T, M)
        maps = self.convolutions(mel)  # (B, C, T / f, M / f)
        sequence = self.to_width(maps.transpose(1, 2).flatten(2))  # (B, T / f, D)
        sequence = self.pool(sequence.transpose(1, 2)).transpose(1, 2) + self.position
        for layer in self.layers:
            sequence = layer(sequence)
        return self.norm(sequence.mean(1))
