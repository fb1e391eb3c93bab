"""The contract of every extractor, and what identifies the weights it read. Knows no network."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codi import media
from codi.build import ModelConfig
from codi.config import ConfigError


class Extractor(ABC):
    """A network that looks at media.

    Attributes:
        name: what suites call it.
        source: file or folder of its weights, as it was given; for CLIP and CLAP, and no other,
            the hub's name of one as well.
        digest: SHA-256 of the file, or of all tensors where there are several files.
        preprocessing: what happens to media before, in words.
        gives: the names in its answer.
    """

    name: str
    source: str
    digest: str
    preprocessing: str
    gives: tuple[str, ...] = ("features",)

    @abstractmethod
    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return what the network says of n objects of a modality, float32 (n, ...) by name.

        "features" are what distances and cosines compare, with an axis more where an object has
        several (frames, pieces of a sound); "logits", where there are any, what a classifier says
        of its classes, before its softmax or after it: the metrics tell which.

        Raises:
            ConfigError: a modality that the network cannot take.
        """

    def try_out(self, config: ModelConfig) -> None:
        """Look at noise of a model's sizes, where the network may turn out to be another.

        Raises:
            ConfigError: it fails, or what it says is not finite.
        """
        del config

    @property
    def identity(self) -> dict[str, str]:
        """Return what a result has to name."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self.digest,
            "preprocessing": self.preprocessing,
        }

    def refuse(self, modality: str, *takes: str) -> ConfigError:
        """Return the error for a modality that it cannot take."""
        return ConfigError(f"extractor {self.name} takes {', '.join(takes)}, not {modality}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_digest(*modules: nn.Module) -> str:
    """Return the SHA-256 of all tensors of some modules, with their names and types."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_file(name: str, source: str, wanted: str) -> Path:
    """Return the file of an extractor's weights.

    Args:
        name: of the extractor.
        source: what the user gave, a file or a folder.
        wanted: its usual file name, looked for in a folder.

    Raises:
        ConfigError: there is none.
    """
    path = Path(source)
    if path.is_dir():
        path = path / wanted
    if not path.is_file():
        raise ConfigError(f"extractor {name}: there is no file {path}; give {wanted}")
    return path


def float32(x: Tensor) -> np.ndarray:
    """Return a tensor as an array of single precision."""
    return x.detach().float().cpu().numpy()


def pixels_of(clips: Sequence[Any]) -> Tensor:
    """Return clips or pictures as they are stored: float (B, 3, F, H, W) from 0 to 255."""
    frames = [
        clip.frames if isinstance(clip, media.Video) else np.asarray(clip.convert("RGB"))[None]
        for clip in clips
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3).float()


def waveforms_of(sounds: Sequence[media.Audio], sample_rate_hz: int) -> Tensor:
    """Return sounds of one length as (B, S) in [-1, 1] at another rate."""
    fitted = [media.fit_audio(s, sample_rate_hz, s.duration_s)[0].samples for s in sounds]
    return torch.from_numpy(np.stack(fitted))
