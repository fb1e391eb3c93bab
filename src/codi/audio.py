"""Waveform <-> log-mel spectrogram, as pure functions on tensors. Knows no codec and no files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class MelConfig:
    """A log-mel spectrogram: `bins` mel bands every `hop` samples.

    The default sizes are those of AudioLDM's front end (Liu et al., 2023), which the paper uses;
    with `centred_on = "start"` and `levelled` it is that front end, as the released CoDi has it.

    Attributes:
        centred_on: where in its hop a column is centred, its middle or its start.
        levelled: whether each sound's mean is taken off and its peak made 0.5 first.
        columns: how many columns every sound has, cut or padded with silence after levelling; by
            default as many as it has hops.
    """

    sample_rate_hz: int = 16_000
    window: int = 1024
    hop: int = 160
    bins: int = 64
    low_hz: float = 0.0
    high_hz: float = 8000.0
    floor: float = 1e-5
    centred_on: Literal["middle", "start"] = "middle"
    levelled: bool = False
    columns: int | None = None

    def frames(self, samples: int) -> int:
        """Return T, the number of spectrogram columns of `samples` waveform samples."""
        return samples // self.hop if self.columns is None else self.columns


def hz_to_mel(hz: Tensor) -> Tensor:
    """Return Slaney's mel scale: linear below 1 kHz, logarithmic above.

    >>> hz_to_mel(torch.tensor([0.0, 1000.0]))
    tensor([ 0., 15.])
    """
    linear = hz * 3.0 / 200.0
    logarithmic = 15.0 + 27.0 * torch.log(hz.clamp_min(1e-10) / 1000.0) / torch.log(
        torch.tensor(6.4, dtype=hz.dtype)
    )
    return torch.where(hz < 1000.0, linear, logarithmic)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Undo `hz_to_mel`."""
    log_step = torch.log(torch.tensor(6.4, dtype=mel.dtype)) / 27.0
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp(log_step * (mel - 15.0)))


@lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> Tensor:
    """Return the Slaney-normalised triangular filters (M, window / 2 + 1)."""
    c = config
    frequencies = torch.linspace(0, c.sample_rate_hz / 2, c.window // 2 + 1, dtype=torch.float64)
    ends = hz_to_mel(torch.tensor([c.low_hz, c.high_hz], dtype=torch.float64))
    corners = mel_to_hz(torch.linspace(ends[0], ends[1], c.bins + 2, dtype=torch.float64))
    below, centre, above = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (frequencies - below) / (centre - below)
    falling = (above - frequencies) / (above - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return (triangles * (2.0 / (above - below))).float()


def magnitudes(
    waveform: Tensor, window: int, hop: int, centred_on: Literal["middle", "start"] = "middle"
) -> Tensor:
    """Return the magnitude spectrogram (B, window / 2 + 1, S / hop) of `waveform` (B, S).

    Columns are centred on the middle of their hop or on its start, with reflected ends.
    """
    before = window // 2 if centred_on == "start" else (window - hop) // 2
    padded = pad(waveform[:, None], (before, window - hop - before), mode="reflect")[:, 0]
    spectrum = torch.stft(
        padded,
        window,
        hop,
        window=torch.hann_window(window, device=waveform.device),
        center=False,
        return_complex=True,
    )
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def levelled(waveform: Tensor) -> Tensor:
    """Return waveforms (B, S) of mean 0 and peak 0.5, as AudioLDM hears them."""
    centred = waveform - waveform.mean(dim=1, keepdim=True)
    return 0.5 * centred / (centred.abs().amax(dim=1, keepdim=True) + 1e-8)


def log_mel(waveform: Tensor, config: MelConfig) -> Tensor:
    """Return the natural-log mel spectrogram (B, 1, T, M) of `waveform` (B, S) in [-1, 1]."""
    c = config
    waveform = levelled(waveform.float()) if c.levelled else waveform.float()
    if c.columns is not None:
        waveform = pad(waveform, (0, c.columns * c.hop - waveform.shape[1]))  # less than 0: cut
    spectrum = magnitudes(waveform, c.window, c.hop, c.centred_on)
    with torch.autocast(waveform.device.type, enabled=False):  # quiet bands need full precision
        mel = mel_filters(c).to(spectrum.device) @ spectrum  # (B, M, T)
    return mel.clamp_min(c.floor).log().transpose(1, 2)[:, None]
