"""Images: a picture is a clip of one frame, so its tensor is (B, 3, 1, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from codi import media
from codi.modalities.base import file_name


def frames_to_tensor(arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Return (B, 3, F, H, W) in [-1, 1] of uint8 frames (B, F, H, W, 3)."""
    frames = torch.from_numpy(np.ascontiguousarray(np.stack(list(arrays))))
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


def tensor_to_frames(x: Tensor) -> np.ndarray:
    """Return uint8 frames (B, F, H, W, 3) of (B, 3, F, H, W) in [-1, 1]."""
    pixels = ((x.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round()
    return pixels.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()


@dataclass(frozen=True)
class ImageMedia:
    """Square RGB pictures of `size_px` on a side."""

    size_px: int

    def load(self, source: Any) -> tuple[Image.Image, list[str]]:
        """Return the picture of a file or of a PIL image: upright, RGB, cropped, resized."""
        if not isinstance(source, Image.Image):
            return media.load_image(
                file_name(source, "a PIL image (Image.fromarray makes one)"), size_px=self.size_px
            )
        return media.fit_image(source, self.size_px)

    def to_array(self, item: Image.Image) -> np.ndarray:
        """Return uint8 (1, H, W, 3)."""
        return np.asarray(item, dtype=np.uint8)[None]

    def to_tensor(self, arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Return (B, 3, 1, H, W)."""
        return frames_to_tensor(arrays)

    def from_tensor(self, x: Tensor) -> list[Image.Image]:
        """Return B pictures."""
        return [Image.fromarray(frames[0]) for frames in tensor_to_frames(x)]

    def with_others(self, item: Image.Image, others: Mapping[str, Any]) -> Image.Image:
        """Return the object: it takes nothing of others."""
        del others
        return item

    def save(self, item: Image.Image, path: Path) -> None:
        """Write a PNG."""
        media.save_image(path, item)

    def picture(self, item: Image.Image) -> np.ndarray:
        """Return the picture."""
        return np.asarray(item, dtype=np.uint8)
