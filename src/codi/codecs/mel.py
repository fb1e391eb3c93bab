"""The audio codec: waveform -> log-mel -> latent, and back through a vocoder (CoDi, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from codi.audio import MelConfig, log_mel
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.base import Codec
from codi.codecs.vocoder import VocoderConfig, spectral_loss
from codi.types import Shares

OUTLIER, BOUND = 100.0, 10.0
"""What the released CoDi takes for a latent gone wrong, and what it clips that to."""


@dataclass(frozen=True)
class MelCodecConfig:
    """Spectrogram, autoencoder and vocoder of the audio codec.

    Attributes:
        mel, autoencoder, vocoder: the three parts.
        centre, spread: log-mel values lie in about [-11.5, 3]; networks see them as
            (value - centre) / spread. AudioLDM's see the values: 0 and 1.
        clip_outliers: whether a latent with a number beyond +-100 is clipped to +-10 before it is
            decoded, as in the released CoDi.
    """

    shares: ClassVar[Shares] = {"autoencoder": ("autoencoder.*",), "vocoder": ("vocoder.*",)}

    mel: MelConfig
    autoencoder: AutoencoderKLConfig
    vocoder: VocoderConfig
    centre: float = -6.0
    spread: float = 4.0
    clip_outliers: bool = False

    def build(self) -> MelCodec:
        """Return the codec with fresh weights."""
        return MelCodec(self)


class MelCodec(Codec):
    """Encode waveforms (B, S) into latents (B, C, 1, T / f, M / f)."""

    def __init__(self, config: MelCodecConfig) -> None:
        super().__init__(config.autoencoder.latent_channels, config.autoencoder.scale_factor)
        if config.vocoder.hop != config.mel.hop:
            raise ValueError(
                f"the vocoder makes {config.vocoder.hop} samples of a column and the spectrogram "
                f"takes {config.mel.hop}; make the product of `upsample` and `istft_hop` the hop"
            )
        self.config = config
        self.autoencoder = config.autoencoder.build()
        self.vocoder = config.vocoder.build()

    def spectrogram(self, x: Tensor) -> Tensor:
        """Return the centred log-mel spectrogram (B, 1, T, M) of waveforms (B, S)."""
        return (log_mel(x, self.config.mel) - self.config.centre) / self.config.spread

    def waveform(self, mel: Tensor) -> Tensor:
        """Return waveforms (B, T * hop) of centred log-mel spectrograms (B, 1, T, M)."""
        return self.vocoder(mel)[:, : mel.shape[2] * self.config.mel.hop]

    def encode_raw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the raw latent (B, C, 1, T / f, M / f), as the autoencoder's `posterior` says."""
        return self.autoencoder.encode_raw(self.spectrogram(x)[:, :, None], generator)

    def decode(self, z: Tensor) -> Tensor:
        """Return waveforms (B, S) of latents (B, C, 1, T / f, M / f)."""
        if self.config.clip_outliers:
            wrong = z.flatten(1).abs().amax(dim=1) > OUTLIER
            z = torch.where(wrong.view(-1, *[1] * (z.ndim - 1)), z.clamp(-BOUND, BOUND), z)
        return super().decode(z)

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Return waveforms (B, S)."""
        return self.waveform(self.autoencoder.decode_raw(raw)[:, :, 0])

    def losses(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the autoencoder's terms on spectrograms; the vocoder has its own."""
        return self.autoencoder.losses(self.spectrogram(x)[:, :, None], generator)

    def vocoder_losses(self, x: Tensor, columns: int, start: int) -> dict[str, Tensor]:
        """Return the vocoder's spectral loss on `columns` spectrogram columns from `start`.

        It hears spectrograms as the autoencoder returns them: that is what it will be given.
        """
        with torch.no_grad():
            mel = self.spectrogram(x)
            decoded = self.autoencoder.decode_raw(self.autoencoder.encode_raw(mel[:, :, None]))
        hop = self.config.mel.hop
        predicted = self.waveform(decoded[:, 0, 0][:, None, start : start + columns])
        target = x[:, start * hop : (start + columns) * hop]
        return {"spectral": spectral_loss(predicted, target)}
