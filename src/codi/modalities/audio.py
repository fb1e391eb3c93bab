"""Audio: mono waveforms (B, S) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codi import media


@dataclass(frozen=True)
class AudioMedia:
    """Mono sounds of `duration_s` at `sample_rate_hz`."""

    sample_rate_hz: int
    duration_s: float

    def load(self, source: Any) -> tuple[media.Audio, list[str]]:
        """Return the sound of a file or of an `Audio`, mixed down, resampled, cut or padded."""
        return media.load_audio(
            source, sample_rate_hz=self.sample_rate_hz, duration_s=self.duration_s
        )

    def to_array(self, item: media.Audio) -> np.ndarray:
        """Return float32 (S,)."""
        return item.samples

    def to_tensor(self, arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Return (B, S); 16-bit integers are scaled to [-1, 1]."""
        samples = np.stack(list(arrays))
        if samples.dtype == np.int16:
            samples = samples.astype(np.float32) / 32767.0
        return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))

    def from_tensor(self, x: Tensor) -> list[media.Audio]:
        """Return B sounds."""
        return [media.Audio(row, self.sample_rate_hz) for row in x.float().clamp(-1, 1).cpu().numpy()]

    def save(self, item: media.Audio, path: Path, beside: dict[str, Any]) -> None:
        """Write a WAV."""
        del beside
        media.save_audio(path, item)
