"""A learned judge of how far a sound is from its picture, for DeSync, as a TorchScript file.

It looks at a clip together with its sound, at the rates that Synchformer was trained on (Iashin et
al., 2024); which offsets it tells apart, the file says itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codi import media
from codi.build import ModelConfig
from codi.config import ConfigError
from codi.evaluation.extractors.base import float32, pixels_of
from codi.evaluation.extractors.scripted import TorchScriptExtractor, noisy_clip, noisy_sound

FILE = "desync.pt"
ORIGIN = (
    "a classifier of offsets such as Synchformer (Iashin et al., 2024) saved with torch.jit; takes "
    "clips (n, 3, F, H, W) from 0 to 255 at 25 fps and waveforms (n, samples) at 16 kHz, gives "
    "scores (n, K); its buffer offsets_s (K,) says by how much the sound runs after the picture"
)

_FPS, _RATE_HZ = 25.0, 16_000


class OffsetExtractor(TorchScriptExtractor):
    """The likeliest offset of the sound of a clip: "offset_s" (n, 1), in seconds.

    Args:
        source: file, or a folder that holds it.
        device: where to compute.

    Attributes:
        offsets_s: (K,), by how much the sound runs after the picture in each class.

    Raises:
        ConfigError: no such file, no TorchScript in it, or none that says its offsets.
    """

    name = "desync"
    preprocessing = "frames at their own size, 0 to 255, held to 25 fps; sound at 16 kHz, as long"
    gives = ("offset_s",)
    rows = "scores"

    def __init__(self, source: str, device: str = "cpu") -> None:
        super().__init__(self.name, source, device, FILE, ORIGIN)
        offsets = getattr(self.network, "offsets_s", None)
        if not isinstance(offsets, Tensor) or offsets.ndim != 1:
            raise ConfigError(
                f"{self.path}: has no buffer offsets_s of one axis; extractor {self.name} wants "
                f"{ORIGIN}"
            )
        self.offsets_s: np.ndarray = offsets.double().cpu().numpy()

    def try_out(self, config: ModelConfig) -> None:
        """Look at noise of a model's sizes: a wrong file is found before anything is sampled.

        Raises:
            ConfigError: the network fails, or its answer is of another number of offsets, or not
                finite.
        """
        if {"video", "audio"} <= set(config.modalities):
            clip, sound = noisy_clip(config.media("video")), noisy_sound(config.media("audio"))
            self.require_finite({"scores": self._scores([replace(clip, audio=sound)])})

    def __call__(self, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the likeliest offset of each of n clips that have their sound.

        Raises:
            ConfigError: a modality that is no video, or clips without sound.
        """
        if modality != "video":
            raise self.refuse(modality, "video")
        likeliest = self._scores(items).argmax(axis=1)
        return {"offset_s": self.offsets_s[likeliest, None].astype(np.float32)}

    @torch.no_grad()
    def _scores(self, clips: Sequence[media.Video]) -> np.ndarray:
        """Return scores (n, K) of clips of one length."""
        x = pixels_of([_held(clip) for clip in clips]).to(self.device)
        y = torch.from_numpy(np.stack([self._heard(clip) for clip in clips])).to(self.device)
        answer = self.require_rows(self.run(x, y), x, y)
        if answer.shape[1] != len(self.offsets_s):
            raise self.mismatch(
                f"answers with {answer.shape[1]} scores for {len(self.offsets_s)} offsets", x, y
            )
        return float32(answer)

    def _heard(self, clip: media.Video) -> np.ndarray:
        """Return the sound (S,) of a clip at the network's rate, as long as the clip.

        Raises:
            ConfigError: it has none.
        """
        if clip.audio is None:
            raise ConfigError(
                f"extractor {self.name}: a clip of {clip.duration_s:g} s has no sound; name it "
                "where video and audio are made together"
            )
        return media.fit_audio(clip.audio, _RATE_HZ, clip.duration_s)[0].samples


def _held(clip: media.Video) -> media.Video:
    """Return a clip at the network's rate: each frame is held until the next one's instant."""
    count = max(round(clip.duration_s * _FPS), 1)
    # A hair more than the instant: 0.32 s at 12.5 fps is frame 4, not what floats make of it.
    at = np.floor(np.arange(count) / _FPS * clip.fps + 1e-6).astype(int)
    return media.Video(clip.frames[np.minimum(at, len(clip.frames) - 1)], _FPS)
