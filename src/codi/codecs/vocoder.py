"""Log-mel spectrogram -> waveform: the HiFi-GAN generator (Kong et al., 2020), of 1-D blocks.

The paper uses the published vocoder; the default model trains a small one of the same shape. With
`istft_window` set, the last upsampling is done by an inverse short-time Fourier transform of a
predicted magnitude and phase (Kaneko et al., 2022), which costs a fraction of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, leaky_relu

from codi.audio import magnitudes
from codi.config import ConfigError

SLOPE = 0.1


@dataclass(frozen=True)
class VocoderConfig:
    """Shape of the generator; the product of `upsample` (and of the last hop) is the mel's hop.

    Attributes:
        kernels, dilations: of the residual blocks after each upsampling, one block a kernel; the
            dilations are the same for all of them, or given kernel by kernel.
        paired: whether a plain convolution follows each dilated one, as in HiFi-GAN's first kind of
            residual block; its second kind has the dilated ones alone.
        overhang: whether an upsampling whose kernel and factor differ by an odd number keeps the
            one sample more that HiFi-GAN's own padding leaves, as its published weights expect;
            without, it makes exactly `factor` samples of one.
    """

    bins: int = 64
    channels: int = 1024
    upsample: tuple[int, ...] = (5, 4, 2, 2, 2)
    upsample_kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] | tuple[tuple[int, ...], ...] = (1, 3, 5)
    paired: bool = True
    istft_window: int | None = None
    istft_hop: int = 1
    overhang: bool = False

    def __post_init__(self) -> None:
        """Check that every kernel has its dilations.

        Raises:
            ConfigError: dilations of more or fewer kernels, or some alike for all and some not.
        """
        nested = [isinstance(each, tuple) for each in self.dilations]
        if any(nested) and (not all(nested) or len(nested) != len(self.kernels)):
            raise ConfigError(
                f"dilations = {list(self.dilations)}; give those of all kernels once, or one list "
                f"for each of the {len(self.kernels)} kernels"
            )

    @property
    def dilations_by_kernel(self) -> tuple[tuple[int, ...], ...]:
        """Return the dilations of each kernel's residual blocks."""
        nested = tuple(each for each in self.dilations if isinstance(each, tuple))
        alike = tuple(each for each in self.dilations if isinstance(each, int))
        return nested or (alike,) * len(self.kernels)

    @property
    def hop(self) -> int:
        """How many samples one spectrogram column becomes."""
        return math.prod(self.upsample) * self.istft_hop

    def build(self) -> Vocoder:
        """Return the generator with fresh weights."""
        return Vocoder(self)


class DilatedResBlock(nn.Module):
    """Residual dilated 1-D convolutions, each `paired` with a plain one or alone (HiFi-GAN, A.1).

    Those are the two kinds of residual blocks that HiFi-GAN has.
    """

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], paired: bool = True
    ) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2)
            for d in dilations
        )
        self.plain = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2)
            for _ in dilations
            if paired
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, S)."""
        for dilated, plain in zip_longest(self.dilated, self.plain):
            hidden = dilated(leaky_relu(x, SLOPE))
            x = x + (hidden if plain is None else plain(leaky_relu(hidden, SLOPE)))
        return x


class Vocoder(nn.Module):
    """Turn log-mel spectrograms (B, 1, T, M) into waveforms (B, T * hop), or a little more."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        c = self.config = config
        self.conv_in = nn.Conv1d(c.bins, c.channels, 7, padding=3)
        self.upsample = nn.ModuleList()
        self.blocks = nn.ModuleList()
        now = c.channels
        for factor, kernel in zip(c.upsample, c.upsample_kernels, strict=True):
            excess = kernel - factor
            padding = excess // 2 if c.overhang else (excess + 1) // 2
            self.upsample.append(
                nn.ConvTranspose1d(
                    now,
                    now // 2,
                    kernel,
                    factor,
                    padding=padding,
                    output_padding=0 if c.overhang else excess % 2,
                )
            )
            now //= 2
            self.blocks.append(
                nn.ModuleList(
                    DilatedResBlock(now, kernel, dilations, c.paired)
                    for kernel, dilations in zip(c.kernels, c.dilations_by_kernel, strict=True)
                )
            )
        outputs = c.istft_window + 2 if c.istft_window else 1
        self.conv_out = nn.Conv1d(now, outputs, 7, padding=3)
        if c.istft_window:
            nn.init.normal_(self.conv_out.weight, std=1e-2)
            assert self.conv_out.bias is not None
            nn.init.constant_(self.conv_out.bias[: outputs // 2], -3.0)  # begin nearly silent

    def forward(self, mel: Tensor) -> Tensor:
        """Return waveforms (B, T * hop) in [-1, 1], and what hangs over with `overhang`."""
        x = self.conv_in(mel[:, 0].transpose(1, 2))  # (B, C, T)
        for upsample, blocks in zip(self.upsample, self.blocks, strict=True):
            x = upsample(leaky_relu(x, SLOPE))
            x = torch.stack([block(x) for block in blocks]).mean(0)  # type: ignore[attr-defined]
        x = self.conv_out(leaky_relu(x))
        if self.config.istft_window is None:
            return x[:, 0].tanh()
        return self._from_spectrum(x.float(), self.config.istft_window)

    def _from_spectrum(self, x: Tensor, window: int) -> Tensor:
        """Return the waveform of a predicted log-magnitude and phase (B, window + 2, T')."""
        log_magnitude, phase = x.chunk(2, dim=1)
        spectrum = torch.polar(log_magnitude.clamp_max(6.0).exp(), math.pi * phase.sin())
        hop = self.config.istft_hop
        length = x.shape[2] * hop
        # One extra column completes the last hop.
        spectrum = torch.cat([spectrum, spectrum[:, :, -1:]], dim=2)
        shape = torch.hann_window(window, device=x.device)
        waveform = torch.istft(spectrum, window, hop, window=shape, length=length)
        return waveform.clamp(-1.0, 1.0)


RESOLUTIONS = ((512, 128), (1024, 256), (256, 50))


def spectral_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the multi-resolution STFT loss of two waveforms (B, S) (Yamamoto et al., 2020).

    The mean over resolutions of spectral convergence and of the distance of log magnitudes.
    """
    total = predicted.new_zeros(())
    for window, hop in RESOLUTIONS:
        ours, true = (magnitudes(x.float(), window, hop) for x in (predicted, target))
        convergence = (ours - true).norm() / true.norm().clamp_min(1.0)
        floor = 1e-3
        total = total + convergence + l1_loss((ours + floor).log(), (true + floor).log())
    return total / len(RESOLUTIONS)
