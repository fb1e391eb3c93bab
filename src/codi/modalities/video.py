"""Video: clips (B, 3, F, H, W) in [-1, 1], which take the sound that was generated beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from codi import media
from codi.media.errors import motionless
from codi.media.framing import framing_notes
from codi.media.video import timing_notes
from codi.modalities.base import file_name
from codi.modalities.image import frames_to_tensor, tensor_to_frames


@dataclass(frozen=True)
class VideoMedia:
    """Square RGB clips of `frames` pictures at `fps`."""

    size_px: int
    frames: int
    fps: float

    def load(self, source: Any) -> tuple[media.Video, list[str]]:
        """Return the clip of a file or of a `Video`: silent, cropped, resized, resampled in time.

        Raises:
            MediaError: a file that cannot be used, or a single frame.
            ConfigError: neither a file name nor a `Video`.
        """
        if not isinstance(source, media.Video):
            path = file_name(source, "a codi.media.Video(frames, fps)")
            return media.load_video(path, frames=self.frames, fps=self.fps, size_px=self.size_px)
        if len(source.frames) == 1:
            raise motionless("video", "give its frame as an image")
        times_s = np.arange(self.frames) / self.fps
        # What is shown at an instant is the last frame that began before it, or with it.
        shown = np.floor(times_s * source.fps + 1e-6).astype(int).clip(max=len(source.frames) - 1)
        clip = media.Video(media.resize_frames(source.frames[shown], self.size_px), self.fps)
        changes = timing_notes(source.duration_s, source.duration_s, source.fps, clip)
        height, width = source.frames.shape[1:3]
        changes += framing_notes(width, height, self.size_px)
        if source.audio is not None:
            changes.append("without its sound (to use it, give its audio too)")
        return clip, [f"video: {', '.join(changes)}"] if changes else []

    def to_array(self, item: media.Video) -> np.ndarray:
        """Return uint8 (F, H, W, 3)."""
        return item.frames

    def to_tensor(self, arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Return (B, 3, F, H, W)."""
        return frames_to_tensor(arrays)

    def from_tensor(self, x: Tensor) -> list[media.Video]:
        """Return B clips."""
        return [media.Video(frames, self.fps) for frames in tensor_to_frames(x)]

    def with_others(self, item: media.Video, others: Mapping[str, Any]) -> media.Video:
        """Return the clip with the sound of its sample, or silent where there is none."""
        return replace(item, audio=others.get("audio"))

    def save(self, item: media.Video, path: Path) -> None:
        """Write an MP4, with the clip's sound where it has one."""
        media.save_video(path, item)

    def picture(self, item: media.Video) -> np.ndarray:
        """Return the frames side by side."""
        return np.concatenate(list(item.frames), axis=1)
