"""Networks that come as TorchScript files: I3D, C3D, VGGish, PANNs.

A TorchScript file holds its own program, so that no other's code is needed here; nothing but
TorchScript is executed. What goes in and out of each is a row of a table, and VGGish's spectrogram,
which its published network does not hold, is made here.
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
from torch.nn.functional import interpolate, pad

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
        prepare: objects -> its input (n, ...), or (n, P, ...) where an object has P pieces.
        preprocessing: the same in words.
        options: arguments of the network's call beside its input.
        origin: where the file comes from, in words.
    """

    file: str
    modality: str
    prepare: Callable[[Sequence[Any]], Tensor]
    preprocessing: str
    origin: str
    options: tuple[tuple[str, bool], ...] = ()
    pieces: bool = False


def _clips(size_px: int) -> Callable[[Sequence[Any]], Tensor]:
    def prepare(items: Sequence[Any]) -> Tensor:
        x = pixels_of(items)
        flat = interpolate(
            x.transpose(1, 2).flatten(0, 1), (size_px, size_px), mode="bilinear", antialias=True
        )
        return flat.unflatten(0, (len(items), -1)).transpose(1, 2)

    return prepare


SCRIPTS: dict[str, Script] = {
    "i3d": Script(
        "i3d_torchscript.pt",
        "video",
        _clips(224),
        "224 px, 0 to 255; the network rescales",
        "the file of StyleGAN-V (Skorokhodov et al., 2022), Kinetics-400",
        (("rescale", True), ("resize", False), ("return_features", True)),
    ),
    "c3d": Script(
        "c3d_ucf101.pt",
        "video",
        _clips(112),
        "112 px, 0 to 255; the network takes the mean off",
        "C3D trained on UCF-101 (Saito et al., 2017), saved with torch.jit; gives logits (n, 101)",
    ),
    "vggish": Script(
        "vggish.pt",
        "audio",
        lambda items: vggish_examples(waveforms_of(items, _RATE_HZ)),
        "16 kHz, log-mel pieces of 0.96 s, no PCA",
        "VGGish (Hershey et al., 2017) saved with torch.jit; takes (n, 1, 96, 64), gives (n, 128)",
        pieces=True,
    ),
    "panns": Script(
        "panns_cnn14.pt",
        "audio",
        lambda items: waveforms_of(items, 32_000),
        "32 kHz waveforms",
        "Cnn14 of PANNs (Kong et al., 2020) saved with torch.jit; takes (n, samples), "
        "gives features (n, 2048) and logits (n, 527)",
    ),
}
"""Every network that comes as a file of its own program."""


def _noisy_clip(kind: Any) -> media.Video:
    shape = (kind.frames, kind.size_px, kind.size_px, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return media.Video(frames, kind.fps)


def _noisy_sound(kind: Any) -> media.Audio:
    count = round(kind.duration_s * kind.sample_rate_hz)
    samples = 0.1 * np.random.default_rng(0).standard_normal(count).astype(np.float32)
    return media.Audio(samples, kind.sample_rate_hz)


_NOISE: Mapping[str, Callable[[Any], Any]] = {"video": _noisy_clip, "audio": _noisy_sound}


class ScriptedExtractor(Extractor):
    """A network of `SCRIPTS`.

    Its answer is a tensor of features, or a pair of features and logits; a network that only
    classifies has its scores as features as well.

    Args:
        name: a key of `SCRIPTS`.
        source: file, or a folder that holds it.
        device: where to compute.

    Raises:
        ConfigError: no such file, or no TorchScript in it; when it looks, a network that fails, or
            answers with anything else.
    """

    gives = ("features", "logits")

    def __init__(self, name: str, source: str, device: str = "cpu") -> None:
        self.name, self.source, self.device = name, source, device
        self.script = SCRIPTS[name]
        self.preprocessing = self.script.preprocessing
        path = weights_file(name, source, self.script.file)
        self.path, self.digest = path, file_digest(path)
        try:
            self.network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise ConfigError(
                f"{path}: is no TorchScript file; extractor {name} wants {self.script.origin}"
            ) from error

    def try_out(self, config: ModelConfig) -> None:
        """Look at noise of a model's sizes: a wrong file is found before anything is sampled.

        Raises:
            ConfigError: the network fails, or its answer is not finite.
        """
        modality = self.script.modality
        if modality not in config.modalities:
            return
        noise = _NOISE[modality](config.media(modality))
        for kind, rows in self(modality, [noise]).items():
            if not np.isfinite(rows).all():
                raise ConfigError(
                    f"{self.path}: {kind} of noise that are not finite; extractor {self.name} "
                    f"wants {self.script.origin}"
                )

    @torch.no_grad()
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the network's answer to n objects."""
        if modality != self.script.modality:
            raise self.refuse(modality, self.script.modality)
        x = self.script.prepare(items).to(self.device)
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
        try:
            found = self.network(x, **dict(self.script.options))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, torch.jit.Error) as error:
            # The program's own trace comes first, and what went wrong last.
            last = (str(error).strip().splitlines() or ["no message"])[-1].strip()
            raise self._refused(x, f"fails with: {last}") from error
        answers = found if isinstance(found, tuple | list) else (found, found)
        for answer in answers[:2]:
            if not isinstance(answer, Tensor):
                raise self._refused(x, f"answers with {type(answer).__name__}, not tensors")
            if answer.ndim != 2 or len(answer) != len(x):
                raise self._refused(x, f"answers with shape {tuple(answer.shape)}")
        return tuple(answers[:2])

    def _refused(self, x: Tensor, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path}: given {tuple(x.shape)}, {what}; extractor {self.name} wants a row of "
            f"features for each of {len(x)}, from {self.script.origin}, and media long enough"
        )
