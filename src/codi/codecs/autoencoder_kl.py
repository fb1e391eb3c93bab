"""KL-regularised autoencoder of pictures (Rombach et al., 2022), frame by frame.

With `patch = 1` it is the shape of Stable Diffusion's first stage; a larger patch folds patch x
patch pixels into channels first, which makes small models much cheaper. Clips (B, C, F, H, W) are
folded into the batch, so images and clips share it. It knows no pixels' meaning: RGB and log-mel
spectrograms both go through. Where no gradient is asked for, it works through the frames of clips a
few at a time, and through large pictures in bands (`codecs.banding`) or tiles (`codecs.tiling`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from codi.codecs.banding import in_bands
from codi.codecs.base import Codec
from codi.codecs.tiling import Network, in_chunks, in_tiles
from codi.config import ConfigError
from codi.nn.attention import Attention
from codi.nn.conv import Downsample, ResBlock, Upsample, conv, group_norm


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """Shape and objective of the autoencoder.

    Attributes:
        channels, multipliers, depth: width of the first level, of all levels, blocks per level.
        patch: pixels folded into channels on each side before the first convolution.
        middle_attention: self-attention over the smallest map.
        attention_levels: levels, from 0 for the largest maps, whose blocks are each followed by
            self-attention (latent diffusion's attn_resolutions).
        kl_weight, latent_noise: weight of the KL term; deviation of noise added to the (unit
            variance) latent in training, which teaches the decoder to bear a diffuser's errors.
        attention_bias, asymmetric_padding, quant_convolutions: what Stable Diffusion's first stage
            has besides: biases of the middle attention's queries, keys and values; zeros below and
            to the right only before strided convolutions; 1 x 1 convolutions of the moments and of
            the latent, left from its quantised ancestor.
        inner_channels: of the maps on the other side of those 1 x 1 convolutions, where they are
            not as many as the latent's (latent diffusion's z_channels beside its embed_dim).
        norm_eps, group_channels: of all norms but the attention's, whose eps is 1e-6; fewest
            channels of a group. 1e-6 and 1 in Stable Diffusion's.
        scale_factor: what raw latents are multiplied by, instead of a measured shift and scale.
        posterior: what `encode` returns: its mean, or a sample of it as in the released CoDi.
        tile_px: at most tile_px x tile_px pixels are coded at once: clips some frames at a time,
            larger pictures layer by layer in bands of as many pixels (decoding only). Neither
            changes anything but the order of sums.
        tile_overlap: decode larger pictures in tiles of side tile_px instead, which overlap by this
            share of it and are blended. Memory then does not grow with the picture, but norms and
            attention see one tile only, so that each tile may have a light and contrast of its own.
    """

    in_channels: int
    latent_channels: int
    channels: int
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
    patch: int = 1
    middle_attention: bool = True
    attention_levels: tuple[int, ...] = ()
    groups: int = 32
    kl_weight: float = 1e-6
    edge_weight: float = 0.0
    latent_noise: float = 0.0
    attention_bias: bool = False
    asymmetric_padding: bool = False
    quant_convolutions: bool = False
    inner_channels: int | None = None
    norm_eps: float = 1e-5
    group_channels: int = 2
    scale_factor: float | None = None
    posterior: Literal["mean", "sample"] = "mean"
    tile_px: int = 512
    tile_overlap: float | None = None

    def __post_init__(self) -> None:
        """Check that tiles can be laid, and that the networks fit the latent.

        Raises:
            ConfigError: a tile smaller than one latent position, nothing but overlap, channels
                that nothing makes the latent's, or attention on a level that is not there.
        """
        for level in self.attention_levels:
            if not 0 <= level < len(self.multipliers):
                raise ConfigError(
                    f"attention_levels has {level}; levels are 0 to {len(self.multipliers) - 1}"
                )
        if self.inner_channels is not None and not self.quant_convolutions:
            raise ConfigError(
                f"inner_channels = {self.inner_channels} needs quant_convolutions = true, which "
                "stand between them and the latent; set it, or leave inner_channels out"
            )
        if self.tile_px < self.factor:
            raise ConfigError(f"tile_px = {self.tile_px}; it must be at least {self.factor}")
        if self.tile_overlap is not None and not 0.0 <= self.tile_overlap <= 0.5:
            raise ConfigError(f"tile_overlap = {self.tile_overlap}; it must lie in 0 to 0.5")

    @property
    def coded_channels(self) -> int:
        """How many channels the decoder reads; the encoder writes twice as many."""
        return self.inner_channels or self.latent_channels

    @property
    def factor(self) -> int:
        """How many pixels on a side become one latent position."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def build(self) -> AutoencoderKL:
        """Return the codec with fresh weights."""
        return AutoencoderKL(self)


class SpatialSelfAttention(nn.Module):
    """One head of self-attention over all positions of a picture (B, C, H, W)."""

    def __init__(
        self, channels: int, groups: int, group_channels: int = 2, bias: bool = False
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups, 1e-6, group_channels)
        self.attention = Attention(channels, channels, 1, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        sequence = self.norm(x).flatten(2).transpose(1, 2)
        attended = self.attention(sequence, sequence)
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


def _block(source: int, target: int, c: AutoencoderKLConfig) -> ResBlock:
    return ResBlock(
        source, target, groups=c.groups, eps=c.norm_eps, group_channels=c.group_channels
    )


def _norm(channels: int, c: AutoencoderKLConfig) -> nn.GroupNorm:
    return group_norm(channels, c.groups, c.norm_eps, c.group_channels)


def _attention(channels: int, c: AutoencoderKLConfig) -> SpatialSelfAttention:
    return SpatialSelfAttention(channels, c.groups, c.group_channels, c.attention_bias)


def _middle(channels: int, c: AutoencoderKLConfig) -> nn.Sequential:
    layers: list[nn.Module] = [_block(channels, channels, c)]
    if c.middle_attention:
        layers.append(_attention(channels, c))
    layers.append(_block(channels, channels, c))
    return nn.Sequential(*layers)


def _encoder(c: AutoencoderKLConfig) -> nn.Sequential:
    widths = [c.channels * m for m in c.multipliers]
    layers: list[nn.Module] = [conv(c.in_channels * c.patch**2, widths[0])]
    now = widths[0]
    for level, width in enumerate(widths):
        for _ in range(c.depth):
            layers.append(_block(now, width, c))
            now = width
            if level in c.attention_levels:
                layers.append(_attention(now, c))
        if level < len(widths) - 1:
            layers.append(Downsample(now, asymmetric=c.asymmetric_padding))
    layers += [_middle(now, c), _norm(now, c), nn.SiLU()]
    layers.append(conv(now, 2 * c.coded_channels))
    return nn.Sequential(*layers)


def _decoder(c: AutoencoderKLConfig) -> nn.Sequential:
    widths = [c.channels * m for m in c.multipliers]
    now = widths[-1]
    layers: list[nn.Module] = [conv(c.coded_channels, now), _middle(now, c)]
    for level in reversed(range(len(widths))):
        for _ in range(c.depth + 1):
            layers.append(_block(now, widths[level], c))
            now = widths[level]
            if level in c.attention_levels:
                layers.append(_attention(now, c))
        if level > 0:
            layers.append(Upsample(now))
    layers += [_norm(now, c), nn.SiLU(), conv(now, c.in_channels * c.patch**2)]
    return nn.Sequential(*layers)


class AutoencoderKL(Codec):
    """Encode pictures or clips (B, C, F, H, W) into latents (B, C', F, H / f, W / f)."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__(config.latent_channels, config.scale_factor)
        c = self.config = config
        self.encoder = _encoder(c)
        self.decoder = _decoder(c)
        if c.quant_convolutions:
            self.quant = nn.Conv2d(2 * c.coded_channels, 2 * c.latent_channels, 1)
            self.post_quant = nn.Conv2d(c.latent_channels, c.coded_channels, 1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, C', F, h, w) of q(z | x)."""
        frames = x.shape[2]
        pictures = x.transpose(1, 2).flatten(0, 1)
        moments = in_chunks(self._moments, pictures, self._at_once(*x.shape[3:]))
        mean, log_variance = moments.unflatten(0, (-1, frames)).transpose(1, 2).float().chunk(2, 1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode_raw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the posterior's mean (B, C', F, h, w), or a sample as `config.posterior` says."""
        mean, log_variance = self.posterior(x)
        if self.config.posterior == "mean":
            return mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + (0.5 * log_variance).exp() * noise

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Return pictures (B, C, F, H, W)."""
        frames, factor = raw.shape[2], self.config.factor
        height, width = (size * factor for size in raw.shape[3:])
        network: Network = self._pictures
        if height * width > self.config.tile_px**2 and not torch.is_grad_enabled():
            network = self._in_bands if self.config.tile_overlap is None else self._in_tiles
        maps = raw.transpose(1, 2).flatten(0, 1)
        pictures = in_chunks(network, maps, self._at_once(height, width))
        return pictures.unflatten(0, (-1, frames)).transpose(1, 2)

    def _at_once(self, height: int, width: int) -> int:
        """Return how many pictures of this size to code at once: all where gradients need all."""
        if torch.is_grad_enabled():
            return sys.maxsize
        return max(self.config.tile_px**2 // (height * width), 1)

    def _moments(self, pictures: Tensor) -> Tensor:
        """Return both moments (N, 2 C', h, w) of pictures (N, C, H, W)."""
        moments = self.encoder(pixel_unshuffle(pictures, self.config.patch))
        return self.quant(moments) if self.config.quant_convolutions else moments

    def _pictures(self, maps: Tensor) -> Tensor:
        """Return pictures (N, C, H, W) of raw latents (N, C', h, w)."""
        return pixel_shuffle(self.decoder(self._unquantised(maps)), self.config.patch)

    def _unquantised(self, maps: Tensor) -> Tensor:
        return self.post_quant(maps) if self.config.quant_convolutions else maps

    def _in_bands(self, maps: Tensor) -> Tensor:
        positions = self.config.tile_px**2 // self.config.patch**2
        decoded = in_bands(self.decoder, self._unquantised(maps), positions)
        return pixel_shuffle(decoded, self.config.patch)

    def _in_tiles(self, maps: Tensor) -> Tensor:
        assert self.config.tile_overlap is not None
        tile = self.config.tile_px // self.config.factor
        return in_tiles(self._pictures, maps, tile, int(tile * self.config.tile_overlap))

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
