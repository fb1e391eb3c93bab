"""Networks that come as TorchScript files: I3D, C3D, VGGish, PANNs.

A TorchScript file holds its own program, so that no other's code is needed here; nothing but
TorchScript is executed. What goes in and out of each is a row of a table. What a file does itself,
such as resizing, is left to it; VGGish's spectrogram, which its published network does not hold, is
made here. Whether a classifier ends in a softmax is told by `codi.evaluation.metrics.classes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from codi import media
from codi.build import ModelConfig
from codi.config import ConfigError
from codi.evaluation.extractors.base import (
    Extractor,
    file_digest,
    float32,
    pixels_of,
    waveforms_of,
    weights_file,
)

# --- VGGish's spectrogram (Hershey et al., 2017) ---

_RATE_HZ, _WINDOW, _HOP, _FFT, _BINS = 16_000, 400, 160, 512, 64
_LOW_HZ, _HIGH_HZ, _OFFSET, _COLUMNS = 125.0, 7500.0, 0.01, 96


def _mel(hz: float) -> float:
    return 1127.0 * math.log1p(hz / 700.0)


@lru_cache(maxsize=1)
def _bands() -> Tensor:
    """Return triangles (bins, FFT / 2 + 1) whose sides are straight in mel, each 1 at its top."""
    frequencies = torch.linspace(0.0, _RATE_HZ / 2, _FFT // 2 + 1, dtype=torch.float64)
    at = 1127.0 * torch.log1p(frequencies / 700.0)
    corners = torch.linspace(_mel(_LOW_HZ), _mel(_HIGH_HZ), _BINS + 2, dtype=torch.float64)
    below, centre, above = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    sides = torch.minimum((at - below) / (centre - below), (above - at) / (above - centre))
    bands = sides.clamp_min(0.0)
    bands[:, 0] = 0.0  # no band hears a constant
    return bands.float()


def vggish_examples(waveforms: Tensor) -> Tensor:
    """Return pieces of 0.96 s (B, P, 1, 96, 64), log-mel, of waveforms (B, S) at 16 kHz.

    What is left at the end is dropped; a sound too short for one piece is followed by silence.
    """
    least = _WINDOW + (_COLUMNS - 1) * _HOP
    x = pad(waveforms, (0, max(least - waveforms.shape[1], 0)))
    window = torch.hann_window(_WINDOW, dtype=torch.float64)  # periodic
    frames = x.double().unfold(1, _WINDOW, _HOP) * window
    magnitude = torch.fft.rfft(frames, _FFT).abs().float()  # (B, T, FFT / 2 + 1)
    mel = torch.log(magnitude @ _bands().T + _OFFSET)
    pieces = mel.shape[1] // _COLUMNS
    return mel[:, : pieces * _COLUMNS].unflatten(1, (pieces, _COLUMNS))[:, :, None]


# --- the table ---


@dataclass(frozen=True)
class Script:
    """What a TorchScript network takes and gives.

    Attributes:
        file: its usual file name.
        modality: what it looks at.
        prepare: objects, rate -> its input (n, ...), or (n, P, ...) where an object has P pieces.
        preprocessing: the same in words; "{khz:g}" stands for the rate.
        origin: where the file comes from and what it takes and gives, in words.
        options: arguments of the network's call beside its input.
        pieces: whether an object has several.
        rates_hz: of waveforms, that there are networks for; a file says its own in a buffer
            `sample_rate_hz`, and is of the first where it does not. Clips have none.
    """

    file: str
    modality: str
    prepare: Callable[[Sequence[Any], int], Tensor]
    preprocessing: str
    origin: str
    options: tuple[tuple[str, bool], ...] = ()
    pieces: bool = False
    rates_hz: tuple[int, ...] = ()


def _clips(items: Sequence[Any], rate_hz: int) -> Tensor:
    """Return clips (B, 3, F, H, W) at their own size, for networks that resize."""
    del rate_hz
    return pixels_of(items)


SCRIPTS: dict[str, Script] = {
    "i3d": Script(
        "i3d_torchscript.pt",
        "video",
        _clips,
        "frames at their own size, 0 to 255; the network resizes and rescales",
        "the file of StyleGAN-V (Skorokhodov et al., 2022), Kinetics-400",
        # As StyleGAN-V calls it; pixels that another resizing made give another FVD.
        (("rescale", True), ("resize", True), ("return_features", True)),
    ),
    "c3d": Script(
        "c3d_ucf101.pt",
        "video",
        _clips,
        "frames at their own size, 0 to 255; the network resizes and takes the mean off",
        "the file of StyleGAN-V (Skorokhodov et al., 2022), C3D trained on UCF-101 (Saito et al., "
        "2020); takes (n, 3, 16, H, W), gives probabilities (n, 101); scores before the softmax "
        "do as well",
    ),
    "vggish": Script(
        "vggish.pt",
        "audio",
        lambda items, rate_hz: vggish_examples(waveforms_of(items, rate_hz)),
        "{khz:g} kHz, log-mel pieces of 0.96 s, no PCA",
        "VGGish (Hershey et al., 2017) saved with torch.jit; takes (n, 1, 96, 64), gives (n, 128) "
        "before the last ReLU, as AudioLDM's evaluation takes them",
        pieces=True,
        rates_hz=(_RATE_HZ,),
    ),
    "panns": Script(
        "panns_cnn14.pt",
        "audio",
        waveforms_of,
        "{khz:g} kHz waveforms",
        "Cnn14 of PANNs (Kong et al., 2020) saved with torch.jit; takes (n, samples) at 32 kHz, or "
        "at 16 kHz where its buffer sample_rate_hz says so, gives features (n, 2048) and logits "
        "(n, 527)",
        rates_hz=(32_000, 16_000),
    ),
}
"""Every network that comes as a file of its own program and looks at one modality."""


def noisy_clip(kind: Any) -> media.Video:
    """Return a clip of noise at the sizes of a model's media."""
    shape = (kind.frames, kind.size_px, kind.size_px, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return media.Video(frames, kind.fps)


def noisy_sound(kind: Any) -> media.Audio:
    """Return a sound of noise at the rate and length of a model's media."""
    count = round(kind.duration_s * kind.sample_rate_hz)
    samples = 0.1 * np.random.default_rng(0).standard_normal(count).astype(np.float32)
    return media.Audio(samples, kind.sample_rate_hz)


_NOISE: Mapping[str, Callable[[Any], Any]] = {"video": noisy_clip, "audio": noisy_sound}


class TorchScriptExtractor(Extractor):
    """What every network from a TorchScript file does: it is loaded, called, and refused by name.

    Args:
        name: what suites call it.
        source: file, or a folder that holds it.
        device: where to compute.
        file: its usual name.
        origin: where the file comes from and what it takes and gives, in words.

    Raises:
        ConfigError: no such file, or no TorchScript in it.
    """

    rows = "features"
    """What it wants of the network for every object, in words."""

    def __init__(self, name: str, source: str, device: str, file: str, origin: str) -> None:
        self.name, self.source, self.device, self.origin = name, source, device, origin
        self.path = weights_file(name, source, file)
        self.digest = file_digest(self.path)
        try:
            self.network = torch.jit.load(str(self.path), map_location=device).eval()
        except RuntimeError as error:
            raise ConfigError(
                f"{self.path}: is no TorchScript file; extractor {name} wants {origin}"
            ) from error

    def run(self, *inputs: Tensor, **options: bool) -> Any:
        """Return what the network answers to inputs (n, ...).

        Raises:
            ConfigError: it fails.
        """
        try:
            return self.network(*inputs, **options)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, torch.jit.Error) as error:
            # The program's own trace comes first, and what went wrong last.
            last = (str(error).strip().splitlines() or ["no message"])[-1].strip()
            raise self.mismatch(f"fails with: {last}", *inputs) from error

    def require_rows(self, answer: Any, *inputs: Tensor) -> Tensor:
        """Return an answer of the network that is a row (n, D) for each of n inputs.

        Raises:
            ConfigError: it is anything else.
        """
        if not isinstance(answer, Tensor):
            raise self.mismatch(f"answers with {type(answer).__name__}, not tensors", *inputs)
        if answer.ndim != 2 or len(answer) != len(inputs[0]):
            raise self.mismatch(f"answers with shape {tuple(answer.shape)}", *inputs)
        return answer

    def require_finite(self, found: Mapping[str, np.ndarray]) -> None:
        """Raise ConfigError for an answer to noise that is not finite."""
        for kind, rows in found.items():
            if not np.isfinite(rows).all():
                raise ConfigError(
                    f"{self.path}: {kind} of noise that are not finite; extractor {self.name} "
                    f"wants {self.origin}"
                )

    def mismatch(self, what: str, *inputs: Tensor) -> ConfigError:
        """Return the error for a network that did something else with inputs."""
        given = " and ".join(str(tuple(x.shape)) for x in inputs)
        return ConfigError(
            f"{self.path}: given {given}, {what}; extractor {self.name} wants a row of "
            f"{self.rows} for each of {len(inputs[0])}, from {self.origin}, and media long enough"
        )


class ScriptedExtractor(TorchScriptExtractor):
    """A network of `SCRIPTS`.

    Its answer is a tensor of features, or a pair of features and logits; a network that only
    classifies has its scores as features as well.

    Args:
        name: a key of `SCRIPTS`.
        source: file, or a folder that holds it.
        device: where to compute.

    Raises:
        ConfigError: no such file, no TorchScript in it, or one for another rate; when it looks, a
            network that fails, or answers with anything else.
    """

    gives = ("features", "logits")

    def __init__(self, name: str, source: str, device: str = "cpu") -> None:
        self.script = SCRIPTS[name]
        super().__init__(name, source, device, self.script.file, self.script.origin)
        self.rate_hz = self._rate_hz()
        self.preprocessing = self.script.preprocessing.format(khz=self.rate_hz / 1000)

    def _rate_hz(self) -> int:
        """Return the rate of the waveforms that the file wants; 0 for one of clips.

        Raises:
            ConfigError: it says one that there is no such network for.
        """
        rates = self.script.rates_hz
        if not rates:
            return 0
        rate = int(getattr(self.network, "sample_rate_hz", rates[0]))
        if rate not in rates:
            raise ConfigError(
                f"{self.path}: its sample_rate_hz is {rate}; extractor {self.name} takes networks "
                f"of {' or '.join(map(str, rates))} Hz"
            )
        return rate

    def try_out(self, config: ModelConfig) -> None:
        """Look at noise of a model's sizes: a wrong file is found before anything is sampled.

        Raises:
            ConfigError: the network fails, or its answer is not finite.
        """
        modality = self.script.modality
        if modality in config.modalities:
            self.require_finite(self(modality, [_NOISE[modality](config.media(modality))]))

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the network's answer to n objects."""
        if modality != self.script.modality:
            raise self.refuse(modality, self.script.modality)
        x = self.script.prepare(items, self.rate_hz).to(self.device)
        count = x.shape[:2]
        flat = x.flatten(0, 1) if self.script.pieces else x
        said = dict(zip(("features", "logits"), self._answers(flat), strict=False))
        if self.script.pieces:
            said = {name: y.unflatten(0, count) for name, y in said.items()}
        return {name: float32(y) for name, y in said.items()}

    def _answers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return features and logits (n, ...) of inputs (n, ...).

        Raises:
            ConfigError: the network fails, or answers with anything else.
        """
        found = self.run(x, **dict(self.script.options))
        answers = found if isinstance(found, tuple | list) else (found, found)
        return tuple(self.require_rows(answer, x) for answer in answers[:2])
