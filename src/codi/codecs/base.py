"""The contract of every codec: media tensor <-> latent of unit variance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from codi.types import Media


class Codec(nn.Module, ABC):
    """Autoencoder whose latents are shifted and scaled per channel to zero mean, unit variance.

    A subclass says how a medium becomes a raw latent and back (`encode_raw`, `decode_raw`), and how
    far its reconstruction is off (`losses`). `calibrate` measures the shift and scale on data; a
    published codec has one fixed `scale_factor` instead, by which raw latents are multiplied, and
    then nothing is measured or stored.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, latent_channels: int, scale_factor: float | None = None) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        if scale_factor is None:
            self.register_buffer("shift", torch.zeros(latent_channels))
            self.register_buffer("scale", torch.ones(latent_channels))

    @abstractmethod
    def encode_raw(self, x: Media) -> Tensor:
        """Return the raw latent (B, C, ...): the mean of the posterior where there is one."""

    @abstractmethod
    def decode_raw(self, raw: Tensor) -> Media:
        """Return the medium of a raw latent."""

    @abstractmethod
    def losses(self, x: Media, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the named terms of the training objective; their sum is minimised."""

    def encode(self, x: Media) -> Tensor:
        """Return the latent (B, C, ...) of unit variance."""
        return self.normalise(self.encode_raw(x))

    def decode(self, z: Tensor) -> Media:
        """Return the medium of a latent."""
        return self.decode_raw(self.denormalise(z))

    def unread(self, x: Media) -> list[str]:
        """Return, for a person, what of media is not read: a line for each; none is the default."""
        del x
        return []

    def normalise(self, raw: Tensor) -> Tensor:
        """Shift and scale a raw latent to zero mean and unit variance."""
        if self.scale_factor is not None:
            return raw * self.scale_factor
        return (raw - self._per_channel(self.shift, raw)) / self._per_channel(self.scale, raw)

    def denormalise(self, z: Tensor) -> Tensor:
        """Undo `normalise`."""
        if self.scale_factor is not None:
            return z / self.scale_factor
        return z * self._per_channel(self.scale, z) + self._per_channel(self.shift, z)

    @torch.no_grad()
    def calibrate(self, samples: Iterable[Media]) -> None:
        """Measure mean and deviation of each channel of the raw latents of `samples`.

        A codec with a fixed `scale_factor` keeps it: diffusers were trained on its latents.
        """
        if self.scale_factor is not None:
            return
        raw = torch.cat([z.transpose(0, 1).flatten(1) for z in self._raw(samples)], dim=1).double()
        self.shift.copy_(raw.mean(dim=1))
        self.scale.copy_(raw.std(dim=1).clamp_min(1e-6))

    def _raw(self, samples: Iterable[Media]) -> Iterator[Tensor]:
        for x in samples:
            yield self.encode_raw(x)

    @staticmethod
    def _per_channel(values: Tensor, like: Tensor) -> Tensor:
        return values.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))
