r"""A fifth modality in one file: depth maps, beside the four that come with codi.

    codi --plugin examples/depth.py train examples/depth.toml --out runs/depth
    codi --plugin examples/depth.py generate --model runs/depth/model \
        --text "a large star by day" --to image depth

A depth map is a grey picture of nearness (1 / distance): 0 is infinitely far, and 255 is the ground
at the lower edge. This file holds what codi cannot know: how such a map becomes arrays, tensors and
files (`DepthMedia`), where training finds pictures with their maps (`DepthSource`), and the three
lines at the end that register them. Its codec, its encoders and its diffuser are kinds of parts
that codi has already; `depth.toml` gives their sizes and trains them.
"""

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
from codi.build import ModelConfig
from codi.data.source import DECODERS, SOURCES, Caption, Record, WorldConfig, WorldSource
from codi.modalities import Modality, register
from codi.modalities.image import ImageMedia
from codi.worlds.bounce.picture import FLOOR_PX, HORIZON_PX, SHAPES, render_frames
from codi.worlds.bounce.scene import DURATION_S, SIZE_PX, Scene

# What a depth map is, for people and for networks -------------------------------------------------


@dataclass(frozen=True)
class DepthMedia:
    """Square grey pictures of `size_px` on a side; bright is near. The object is a PIL image."""

    size_px: int

    def load(self, source: Any) -> tuple[Image.Image, list[str]]:
        """Return the map of a picture file or of a PIL image, cropped, resized, made grey."""
        picture, notes = ImageMedia(self.size_px).load(source)
        return picture.convert("L"), notes

    def to_array(self, item: Image.Image) -> np.ndarray:
        """Return uint8 (1, H, W)."""
        return np.asarray(item, dtype=np.uint8)[None]

    def to_tensor(self, arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Return (B, 1, 1, H, W) in [-1, 1]: one channel of one frame."""
        maps = torch.from_numpy(np.ascontiguousarray(np.stack(list(arrays))))  # (B, 1, H, W)
        return maps[:, None].float() / 127.5 - 1.0

    def from_tensor(self, x: Tensor) -> list[Image.Image]:
        """Return B maps."""
        grey = ((x[:, 0, 0].float().clamp(-1.0, 1.0) + 1.0) * 127.5).round()
        return [Image.fromarray(one) for one in grey.to(torch.uint8).cpu().numpy()]

    def with_others(self, item: Image.Image, others: Mapping[str, Any]) -> Image.Image:
        """Return the object: it takes nothing of others."""
        del others
        return item

    def save(self, item: Image.Image, path: Path) -> None:
        """Write a grey PNG."""
        media.save_image(path, item)

    def picture(self, item: Image.Image) -> np.ndarray:
        """Return the map as uint8 (H, W, 3)."""
        return np.asarray(item.convert("RGB"), dtype=np.uint8)


# Where training finds depth maps ------------------------------------------------------------------

FACTS_OF_DEPTH = ("shape", "size")
"""What a depth map shows of a scene; colour, material and background leave no trace in it."""


def render_depth(scene: Scene, time_s: float) -> np.ndarray:
    """Return the depth map (64, 64), uint8, of a scene of the bounce world at an instant.

    The sky is infinitely far, and the ground's nearness grows linearly from the horizon to the
    lower edge, as in any picture of a plane. The object is as near as the ground it lands on.
    """
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] + 0.5
    ground = ((y - HORIZON_PX) / (SIZE_PX - HORIZON_PX)).clip(0.0, 1.0)
    landing = (FLOOR_PX - HORIZON_PX) / (SIZE_PX - HORIZON_PX)
    now, half = np.array([time_s]), 0.5 * scene.extent_px
    u = (x - scene.centres_x_px(now)) / half
    v = (y - FLOOR_PX + scene.heights_px(now) + half) / half
    inside = (0.5 - half * SHAPES[scene.facts["shape"]](u, v)).clip(0.0, 1.0)  # one soft pixel
    nearness = ground + (landing - ground) * inside
    return np.asarray((255.0 * nearness).round(), dtype=np.uint8)


@dataclass(frozen=True)
class DepthWorldConfig:
    """Still pictures of the bounce world, each with its depth map and captions."""

    clips: int
    seed: int = 0
    split: str = "trained"

    def build(self, config: ModelConfig, root: Path | None) -> DepthSource:
        """Return the source."""
        del root
        source = DepthSource(WorldConfig("bounce", self.clips, self.seed, self.split))
        source.check(config)
        return source


class DepthSource(WorldSource):
    """One instant of every scene, as a picture and as a depth map."""

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Return the media settings, by modality, that fit what is rendered."""
        return {"image": {"size_px": SIZE_PX}, "depth": {"size_px": SIZE_PX}}

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        """Return the picture (1, H, W, 3) and the map (1, H, W) of one instant."""
        scene = self.scene(index)
        time_s = float(np.random.default_rng(scene.seed).uniform(0.0, DURATION_S))
        picture = render_frames(scene, np.array([time_s]))
        arrays = {"image": picture, "depth": render_depth(scene, time_s)[None]}
        return arrays, {"facts": dict(scene.facts), "time_s": time_s}

    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        """Write a caption; one of a depth map speaks of what a picture shows, less its colours."""
        if shown_by == "depth":
            facts = {fact: record["facts"][fact] for fact in FACTS_OF_DEPTH}
            return super().caption({"facts": facts}, "image", rng, complete)
        return super().caption(record, shown_by, rng, complete)


def decode_depth(encoded: bytes, record: Record, settings: dict[str, Any]) -> np.ndarray:
    """Return the array of a depth map in a shard, a member called `KEY.depth.png`."""
    del record
    depth = DepthMedia(**settings)
    return depth.to_array(depth.load(media.decode_image(encoded))[0])


# What makes it known ------------------------------------------------------------------------------

register(Modality("depth", "a depth map, bright where near", "png", f"{__name__}:DepthMedia"))
SOURCES["depth-world"] = DepthWorldConfig
DECODERS["depth"] = decode_depth
