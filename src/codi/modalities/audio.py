"""Audio: mono waveforms (B, S) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codi import media
from codi.audio import MelConfig, log_mel
from codi.modalities.base import file_name


@dataclass(frozen=True)
class AudioMedia:
    """Mono sounds of `duration_s` at `sample_rate_hz`."""

    sample_rate_hz: int
    duration_s: float

    def load(self, source: Any) -> tuple[media.Audio, list[str]]:
        """Return the sound of a file or of an `Audio`, mixed down, resampled, cut or padded."""
        rate_hz, duration_s = self.sample_rate_hz, self.duration_s
        if not isinstance(source, media.Audio):
            path = file_name(source, "a codi.media.Audio(samples, sample_rate_hz)")
            return media.load_audio(path, sample_rate_hz=rate_hz, duration_s=duration_s)
        fitted, note = media.fit_audio(source, rate_hz, duration_s)
        return fitted, [f"audio: {note}"] if note else []

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
        return [
            media.Audio(row, self.sample_rate_hz) for row in x.float().clamp(-1, 1).cpu().numpy()
        ]

    def with_others(self, item: media.Audio, others: Mapping[str, Any]) -> media.Audio:
        """Return the object: it takes nothing of others."""
        del others
        return item

    def save(self, item: media.Audio, path: Path) -> None:
        """Write a WAV."""
        media.save_audio(path, item)

    def picture(self, item: media.Audio) -> np.ndarray:
        """Return the log-mel spectrogram in grey, time to the right and pitch upwards."""
        samples = torch.from_numpy(item.samples)[None]
        mel = log_mel(samples, MelConfig(sample_rate_hz=self.sample_rate_hz))[0, 0].T.flip(0)
        grey = ((mel + 11.5) / 13.0).clamp(0.0, 1.0) * 255.0
        return grey.to(torch.uint8)[..., None].expand(-1, -1, 3).numpy()
