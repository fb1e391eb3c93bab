"""What a modality is, and the registry of all of them.

An entry is a light descriptor: listing modalities imports no torch, so that the command line can
name them in its help. A modality of your own is one file with one `register(Modality(...))`,
imported before use or found through the entry-point group `codi.modalities`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from codi.config import ConfigError, unknown

if TYPE_CHECKING:
    import numpy as np

    from codi.types import Media


@runtime_checkable
class MediaType(Protocol):
    """How files, objects, arrays and tensors of one modality become each other.

    Implementations are frozen dataclasses; their fields (sizes, rates) are read from the preset's
    `[modalities.<name>.media]`. An *object* is what a user holds (a PIL image, a sound), an *array*
    is what is stored (uint8 frames, float samples, a string), a *tensor* is what a network takes.
    """

    def load(self, source: Any) -> tuple[Any, list[str]]:
        """Return the object of a file or of an object, and notes on what was cut or resampled."""
        ...

    def to_array(self, item: Any) -> np.ndarray | str:
        """Return the array of an object."""
        ...

    def to_tensor(self, arrays: Any) -> Media:
        """Return the network input (B, ...) of B arrays."""
        ...

    def from_tensor(self, x: Media) -> list[Any]:
        """Return the B objects of a decoded batch."""
        ...

    def with_others(self, item: Any, others: Mapping[str, Any]) -> Any:
        """Return an object with what it takes of those of its sample, by modality name.

        A clip takes its sound; most take nothing.
        """
        ...

    def save(self, item: Any, path: Path) -> None:
        """Write an object."""
        ...

    def picture(self, item: Any) -> np.ndarray:
        """Return uint8 (H, W, 3) that shows the object at a glance, such as a spectrogram."""
        ...


@dataclass(frozen=True)
class Modality:
    """A registered modality.

    Attributes:
        name: what users type (`--to name`) and what latents are keyed by.
        summary: one line for `--help`.
        suffix: file name ending of outputs, without the dot.
        media: "package.module:Class" of its `MediaType`, imported at first use.
        is_caption: whether it is written: given literally, and drawn from captions in training.
        part_of: modality whose stored items contain one of this (an image is a frame of a video).
        in_time: whether it goes on in time, so that something in it can strike at an instant.
    """

    name: str
    summary: str
    suffix: str
    media: str
    is_caption: bool = False
    part_of: str | None = None
    in_time: bool = False

    def media_class(self) -> type[MediaType]:
        """Import and return the media class."""
        module, _, attribute = self.media.partition(":")
        return getattr(importlib.import_module(module), attribute)


def file_name(source: Any, instead: str) -> str | os.PathLike[str]:
    """Return `source` if it can name a file.

    Args:
        source: what a user gave as a medium.
        instead: what else would do, for the message.

    Raises:
        ConfigError: it is no file name.
    """
    if isinstance(source, str | os.PathLike):
        return source
    raise ConfigError(f"expected a file name or {instead}, got {type(source).__name__}")


_REGISTRY: dict[str, Modality] = {}


def register(entry: Modality) -> Modality:
    """Add a modality; the same entry may be registered twice, another of its name may not.

    Raises:
        ConfigError: a different modality of this name exists.
    """
    existing = _REGISTRY.setdefault(entry.name, entry)
    if existing != entry:
        raise ConfigError(f"modality {entry.name!r} is registered already; choose another name")
    return entry


@cache
def _discover() -> None:
    """Register the modalities of installed packages."""
    for point in entry_points(group="codi.modalities"):
        point.load()


def names() -> list[str]:
    """Return the names of all registered modalities, in order of registration."""
    _discover()
    return list(_REGISTRY)


def modality(name: str) -> Modality:
    """Return the modality called `name`.

    Raises:
        ConfigError: no such modality; names the nearest one.
    """
    _discover()
    if name not in _REGISTRY:
        raise ConfigError(unknown("modality", name, _REGISTRY))
    return _REGISTRY[name]


for _entry in (
    Modality("text", "a sentence", "txt", "codi.modalities.text:TextMedia", is_caption=True),
    Modality(
        "image", "a still picture", "png", "codi.modalities.image:ImageMedia", part_of="video"
    ),
    Modality(
        "video",
        "a silent clip of pictures",
        "mp4",
        "codi.modalities.video:VideoMedia",
        in_time=True,
    ),
    Modality("audio", "a sound", "wav", "codi.modalities.audio:AudioMedia", in_time=True),
):
    register(_entry)
