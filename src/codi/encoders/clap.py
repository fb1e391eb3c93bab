"""CLAP as prompt encoder of audio (CoDi, section 3.2; Wu et al., 2023; HTS-AT, Chen et al., 2022).

An adapter around the audio tower of the `transformers` library, with CLAP's own front end in torch,
so that it runs where the waveforms are. Sizes are fields, `pretrained` names published weights. It
knows no diffuser and no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad, relu

from codi.audio import MelConfig, mel_filters
from codi.encoders.base import PromptEncoder
from codi.encoders.published import builds_shapes_only, load_published, transformers_library
from codi.types import Shares

MEL = MelConfig(sample_rate_hz=48_000, window=1024, hop=480, bins=64, low_hz=50.0, high_hz=14_000.0)
"""CLAP's own spectrogram."""


@dataclass(frozen=True)
class ClapAudioConfig:
    """Shape of CLAP's audio tower; the defaults are those of the released CoDi: HTS-AT "large".

    Attributes:
        sample_rate_hz: rate of the waveforms it is given; they are resampled to `mel`'s.
        mel: the spectrogram, read in decibels.
        duration_s: how much it hears: the beginning of longer sounds (the released CoDi takes a
            piece at random, here the same sound is always the same prompt); shorter ones are
            repeated, then padded.
        resampling: "fourier", or "windowed_sinc" as in the released CoDi.
        channels, depths, heads: width of the first stage (each next one has twice that), and
            layers and heads of every stage.
        picture: side of the square picture the spectrogram is folded into.
        unit_context: whether the context is the embedding as it is, as in the released CoDi.
        keeps_unused: whether the classifier (of `classes`) and the transform of embeddings are
            held, which the released weights contain and no prompt needs, so that counts and exports
            are those of the released CoDi.
        pretrained: folder or hub name of published weights; random weights when empty. Where its
            embeddings have another width than the context, the projection is new and has to be
            trained by alignment.
    """

    shares: ClassVar[Shares] = {
        "tower": ("tower.*", "*_classes.*"),
        "tower/classifier": ("*_classes.*",),
        "transform": ("transform.*",),
        "projection": ("to_hidden.*", "to_embedding.*"),
    }

    context_width: int = 768
    sample_rate_hz: int = 16_000
    mel: MelConfig = MEL
    duration_s: float = 10.0
    resampling: Literal["fourier", "windowed_sinc"] = "fourier"
    channels: int = 256
    depths: tuple[int, ...] = (2, 2, 12, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    patch: int = 4
    picture: int = 256
    unit_context: bool = False
    keeps_unused: bool = False
    classes: int = 527
    pretrained: str = ""

    @property
    def width(self) -> int:
        """Return the channels of the last stage."""
        return self.channels * 2 ** (len(self.depths) - 1)

    def build(self) -> ClapAudio:
        """Return the encoder.

        Raises:
            ConfigError: `transformers` or the published weights are missing.
        """
        return ClapAudio(self)


class ClapAudio(PromptEncoder):
    """Embed waveforms (B, S) in [-1, 1]."""

    def __init__(self, config: ClapAudioConfig) -> None:
        super().__init__(config.context_width, config.context_width, config.unit_context)
        c = self.config = config
        sizes = {
            "patch_embeds_hidden_size": c.channels,
            "hidden_size": c.width,
            "depths": list(c.depths),
            "num_attention_heads": list(c.heads),
            "num_mel_bins": c.mel.bins,
            "spec_size": c.picture,
            "patch_size": c.patch,
            "window_size": c.window,
            "enable_fusion": False,
        }
        self.to_hidden = nn.Linear(c.width, c.context_width)
        if c.pretrained and not builds_shapes_only():
            whole = load_published("ClapAudioModelWithProjection", c.pretrained, sizes)
            if whole.config.projection_dim == c.context_width:
                self.to_hidden = whole.audio_projection.linear1
                self.to_embedding = whole.audio_projection.linear2
            self.tower: Any = whole.audio_model
        else:
            library = transformers_library()
            stride = [c.patch, c.patch]
            self.tower = library.ClapAudioModel(
                library.ClapAudioConfig(**sizes, patch_stride=stride)
            )
        if c.keeps_unused:
            side = c.picture // c.patch // 2 ** (len(c.depths) - 1)  # of the last stage's map
            rows = side * c.mel.bins // c.picture
            self.to_classes = nn.Conv2d(c.width, c.classes, (rows, 3), padding=(0, 1))
            self.between_classes = nn.Linear(c.classes, c.classes)
            self.transform = nn.ModuleList(
                nn.Linear(c.context_width, c.context_width) for _ in range(2)
            )

    def train(self, mode: bool = True) -> ClapAudio:
        """Set the mode of all but the tower's batch norm and dropout.

        A prompt must not depend on the prompts beside it, nor on chance, while diffusers learn.
        """
        super().train(mode)
        for module in self.tower.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, D') of waveforms (B, S)."""
        mel = self.spectrogram(x).to(self.mean.dtype)
        return relu(self.to_hidden(self.tower(input_features=mel).pooler_output))

    def spectrogram(self, x: Tensor) -> Tensor:
        """Return CLAP's spectrogram (B, 1, T, M) in decibels of waveforms (B, S)."""
        mel = self.config.mel
        resampled = RESAMPLERS[self.config.resampling]
        heard = self._fitted(resampled(x.float(), self.config.sample_rate_hz, mel.sample_rate_hz))
        window = torch.hann_window(mel.window, device=x.device, dtype=torch.float64)
        # Beside loud bands, single precision leaves noise in quiet ones, which decibels magnify.
        spectrum = torch.stft(
            heard.double(), mel.window, mel.hop, window=window, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (B, window / 2 + 1, T)
        with torch.autocast(x.device.type, enabled=False):
            bands = mel_filters(mel).to(power) @ power
        return 10.0 * bands.clamp_min(1e-10).log10().float().transpose(1, 2)[:, None]

    def _fitted(self, x: Tensor) -> Tensor:
        """Return waveforms of exactly `duration_s`: cut, or repeated whole and padded."""
        wanted = round(self.config.duration_s * self.config.mel.sample_rate_hz)
        whole = x[:, :wanted].repeat(1, max(wanted // x.shape[1], 1))
        return pad(whole, (0, wanted - whole.shape[1]))


def resample(x: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Return waveforms (B, S) at another rate, limited to the lower one's band.

    Exact for a sound that repeats itself; at the ends of others a few samples ring.

    >>> resample(torch.ones(1, 4), 16_000, 48_000).shape
    torch.Size([1, 12])
    """
    if from_hz == to_hz:
        return x
    samples = round(x.shape[1] * to_hz / from_hz)
    return torch.fft.irfft(torch.fft.rfft(x), n=samples) * (samples / x.shape[1])


def resample_windowed(x: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Return waveforms (B, S) at another rate, by sinc interpolation under a Hann window.

    The window spans six zero crossings to each side and the band ends at 0.99 of the lower rate's,
    which are the defaults of torchaudio and so of the released CoDi.

    >>> resample_windowed(torch.zeros(1, 4), 16_000, 48_000).shape
    torch.Size([1, 12])
    """
    if from_hz == to_hz:
        return x
    divisor = math.gcd(from_hz, to_hz)
    down, up = from_hz // divisor, to_hz // divisor
    kernels = _sinc_kernels(down, up).to(x)
    reach = (kernels.shape[-1] - down) // 2
    around = pad(x[:, None], (reach, reach + down))
    phases = conv1d(around, kernels, stride=down)  # (B, up, S / down + 1)
    return phases.transpose(1, 2).flatten(1)[:, : math.ceil(x.shape[1] * up / down)]


@lru_cache(maxsize=8)
def _sinc_kernels(down: int, up: int, crossings: int = 6, rolloff: float = 0.99) -> Tensor:
    """Return one low-pass filter (up, 1, taps) for each phase of the output, in float64."""
    band = min(down, up) * rolloff
    reach = math.ceil(crossings * down / band)
    taps = torch.arange(-reach, reach + down, dtype=torch.float64) / down
    phases = torch.arange(up, dtype=torch.float64)[:, None] / up
    t = ((taps - phases) * band).clamp(-crossings, crossings)
    window = (t * math.pi / crossings / 2).cos().square()
    return (torch.sinc(t) * window * band / down)[:, None]


RESAMPLERS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "fourier": resample,
    "windowed_sinc": resample_windowed,
}
"""How a waveform comes to another rate, by the name that a configuration gives."""
