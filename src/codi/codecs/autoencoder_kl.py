"""KL-regularised autoencoder of pictures (Rombach et al., 2022), frame by frame.

With `patch = 1` it is the shape of Stable Diffusion's first stage; a larger patch folds patch x
patch pixels into channels first, which makes small models much cheaper. Clips (B, C, F, H, W) are
folded into the batch, so images and clips share it. It knows no pixels' meaning: RGB and log-mel
spectrograms both go through.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from codi.codecs.base import Codec
from codi.nn.attention import Attention
from codi.nn.conv import Downsample, ResBlock, Upsample, conv, group_norm


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """Shape and objective of the autoencoder.

    Attributes:
        channels, multipliers, depth: width of the first level, of all levels, blocks per level.
        patch: pixels folded into channels on each side before the first convolution.
        middle_attention: self-attention over the smallest map.
        kl_weight, latent_noise: weight of the KL term; deviation of noise added to the (unit
            variance) latent in training, which teaches the decoder to bear a diffuser's errors.
    """

    in_channels: int
    latent_channels: int
    channels: int
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
    patch: int = 1
    middle_attention: bool = True
    groups: int = 32
    kl_weight: float = 1e-6
    edge_weight: float = 0.0
    latent_noise: float = 0.0

    @property
    def factor(self) -> int:
        """How many pixels on a side become one latent position."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def build(self) -> AutoencoderKL:
        """Return the codec with fresh weights."""
        return AutoencoderKL(self)


class SpatialSelfAttention(nn.Module):
    """One head of self-attention over all positions of a picture (B, C, H, W)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, eps=1e-6)
        self.attention = Attention(channels, channels, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        sequence = self.norm(x).flatten(2).transpose(1, 2)
        attended = self.attention(sequence, sequence)
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


def _middle(channels: int, config: AutoencoderKLConfig) -> nn.Sequential:
    layers: list[nn.Module] = [ResBlock(channels, channels, groups=config.groups)]
    if config.middle_attention:
        layers.append(SpatialSelfAttention(channels, config.groups))
    layers.append(ResBlock(channels, channels, groups=config.groups))
    return nn.Sequential(*layers)


def _encoder(c: AutoencoderKLConfig) -> nn.Sequential:
    widths = [c.channels * m for m in c.multipliers]
    layers: list[nn.Module] = [conv(c.in_channels * c.patch**2, widths[0])]
    now = widths[0]
    for level, width in enumerate(widths):
        for _ in range(c.depth):
            layers.append(ResBlock(now, width, groups=c.groups))
            now = width
        if level < len(widths) - 1:
            layers.append(Downsample(now))
    layers += [_middle(now, c), group_norm(now, c.groups), nn.SiLU()]
    layers.append(conv(now, 2 * c.latent_channels))
    return nn.Sequential(*layers)


def _decoder(c: AutoencoderKLConfig) -> nn.Sequential:
    widths = [c.channels * m for m in c.multipliers]
    now = widths[-1]
    layers: list[nn.Module] = [conv(c.latent_channels, now), _middle(now, c)]
    for level in reversed(range(len(widths))):
        for _ in range(c.depth + 1):
            layers.append(ResBlock(now, widths[level], groups=c.groups))
            now = widths[level]
        if level > 0:
            layers.append(Upsample(now))
    layers += [group_norm(now, c.groups), nn.SiLU(), conv(now, c.in_channels * c.patch**2)]
    return nn.Sequential(*layers)


class AutoencoderKL(Codec):
    """Encode pictures or clips (B, C, F, H, W) into latents (B, C', F, H / f, W / f)."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__(config.latent_channels)
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, C', F, h, w) of q(z | x)."""
        frames = x.shape[2]
        pictures = pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), self.config.patch)
        moments = self.encoder(pictures).unflatten(0, (-1, frames)).transpose(1, 2)
        mean, log_variance = moments.float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode_raw(self, x: Tensor) -> Tensor:
        """Return the posterior's mean (B, C', F, h, w)."""
        return self.posterior(x)[0]

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Return pictures (B, C, F, H, W)."""
        frames = raw.shape[2]
        pictures = self.decoder(raw.transpose(1, 2).flatten(0, 1))
        pictures = pixel_shuffle(pictures, self.config.patch)
        return pictures.unflatten(0, (-1, frames)).transpose(1, 2)

    def losses(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the reconstruction, edge and KL terms for `x` (B, C, F, H, W)."""
        c = self.config
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        deviation = (0.5 * log_variance).exp()
        noisy = mean + (deviation.square() + c.latent_noise**2).sqrt() * noise
        decoded = self.decode_raw(noisy.to(x.dtype)).float()
        error = decoded - x.float()
        terms = {
            "reconstruction": error.abs().mean() + error.square().mean(),
            "kl": c.kl_weight
            * 0.5
            * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean(),
        }
        if c.edge_weight:
            across = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
            terms["edges"] = c.edge_weight * across
        return terms
