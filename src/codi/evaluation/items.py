"""Where the items of a protocol come from: published data sets, and the bounce world.

Both give media at the model's own sizes and rates, captions, and a fingerprint. They know no
metric and no network.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from codi import media
from codi.build import ModelConfig
from codi.config import ConfigError
from codi.data.benchmarks import BENCHMARKS, Example
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.records import Reading
from codi.evaluation.suites import Input, Terms, Truth
from codi.modalities import modality as modality_entry
from codi.progress import Progress

WORLD = BounceSuite.name
"""What a protocol calls the bounce world."""

_PICTURE_OF_VIDEO = "middle of the file"
"""Which frame of a video is its picture; records of another one are not taken for these."""


class Items(ABC):
    """Media and captions by number.

    Attributes:
        terms: the facts that are known of them; none of published data.
    """

    terms: Terms = Terms({}, {})

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Return how many there are; None where there are always more."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes whenever the items would."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Return all captions of an item."""

    @abstractmethod
    def caption(self, index: int, given: Input) -> str:
        """Return the one that a written prompt is, the same one every time."""

    @abstractmethod
    def medium(self, index: int, modality: str) -> Any:
        """Return an object that is no caption."""

    def broken(self, index: int) -> str | None:
        """Return why an item cannot be used; None where it can."""
        del index
        return None

    def truth(self, index: int) -> Truth:
        """Return what is known to be true of an item."""
        del index
        return Truth({})

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what can be read off objects without a network."""
        written = modality_entry(modality).is_caption
        return [Reading({}, words=item if written else None) for item in items]


class PublishedItems(Items):
    """The items of a data set that have all media that are used, chosen at random.

    Args:
        data: name of the data set.
        root: its folder, or one that holds it.
        used: modalities that every item has to have.
        split: of the data set.
        limit: items at most.
        config: of the model, whose sizes and rates media get.
        seed: of the choice and order of items, and of captions.
        progress: shows the search for media.

    Attributes:
        missing: how many items that the data set lists were passed over, without some medium.
        damaged: those whose media turned out to be damaged when they were read, and why.

    Raises:
        ConfigError: no data, with how to get it, or lists that cannot be read.
    """

    def __init__(
        self,
        data: str,
        root: Path | None,
        used: Collection[str],
        split: str,
        limit: int,
        config: ModelConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        self.config, self.seed = config, seed
        self.used = sorted(used)
        self.damaged: dict[int, str] = {}
        self._readable: set[int] = set()
        every, self.missing = _listed(data, root, split)
        order = np.random.default_rng(seed).permutation(len(every))
        self.examples: list[Example] = []
        for i in progress(f"{data}: looking for media", len(every)):
            example = every[order[i]]
            if len(self.examples) == limit:
                continue
            if all(_has(example, name) for name in used):
                self.examples.append(example)
            else:
                self.missing += 1
        if not self.examples:
            raise ConfigError(
                f"no item of {data}'s split {split!r} has all of {', '.join(sorted(used))}; "
                f"{BENCHMARKS[data].instructions}"
            )

    @property
    def count(self) -> int:
        """Return how many were chosen."""
        return len(self.examples)

    @property
    def fingerprint(self) -> str:
        """Return keys, captions and sizes of files."""
        sizes = [{n: p.stat().st_size for n, p in e.files.items()} for e in self.examples]
        told = [(e.key, e.captions, s) for e, s in zip(self.examples, sizes, strict=True)]
        framed = any(modality_entry(name).part_of for name in self.used)
        return f"{_PICTURE_OF_VIDEO} {told!r}" if framed else repr(told)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions by people."""
        return self.examples[index].captions

    def caption(self, index: int, given: Input) -> str:
        """Return one of them, drawn by the seed, whatever is asked for: nobody knows its facts."""
        del given
        captions = self.captions(index)
        return captions[int(np.random.default_rng((self.seed, index)).integers(len(captions)))]

    def broken(self, index: int) -> str | None:
        """Return what is wrong with a file of an item; None where all that is used can be read."""
        if index in self._readable:
            return None
        if index not in self.damaged:
            try:
                for name in self.used:
                    if not modality_entry(name).is_caption:
                        self.medium(index, name)
            except media.MediaError as error:
                self.damaged[index] = str(error)
            else:
                self._readable.add(index)
        return self.damaged.get(index)

    def medium(self, index: int, modality: str) -> Any:
        """Return a file's medium; a picture may be the middle frame, a sound a track, of a video.

        It is the middle of the whole file (CoDi, 5.2), whatever part of it the model's clips have.
        """
        files, kind = self.examples[index].files, self.config.media(modality)
        whole = modality_entry(modality).part_of
        if whole is not None and modality not in files:
            size_px = int(self.config.modality(modality).media["size_px"])
            return kind.load(media.load_middle_frame(files[whole], size_px=size_px))[0]
        return kind.load(files.get(modality, files.get(_CLIP)))[0]


def _listed(data: str, root: Path | None, split: str) -> tuple[list[Example], int]:
    """Return the items of a split that have media, and how many others its lists name.

    Raises:
        ConfigError: no data, with how to get it, or lists that cannot be read.
    """
    reader = BENCHMARKS[data]
    try:
        found = reader.examples(root, split)
        every = sum(1 for _ in reader.read(reader.folder(root), split))
    except ConfigError:
        raise
    except (KeyError, AttributeError, TypeError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"{reader.folder(root)}: the lists of {data}'s split {split!r} cannot be read "
            f"({type(error).__name__}: {error}), as if one were cut off or of another version; "
            f"{reader.instructions}"
        ) from error
    return found, every - len(found)


class WorldItems(Items):
    """Scenes of the bounce world that no training saw, with captions that tell all of them."""

    count = None
    terms = BounceSuite.terms

    def __init__(self, split: str, config: ModelConfig, seed: int) -> None:
        self.suite, self.split, self.config = BounceSuite(seed), split, config

    @property
    def fingerprint(self) -> str:
        """Return that of the world, whatever the split."""
        return self.suite.fingerprint

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the one caption."""
        return (self.caption(index, Input("text")),)

    def caption(self, index: int, given: Input) -> str:
        """Return a sentence about the clip, which shows every fact, or about what is asked for."""
        about = given.shown_by or _CLIP
        return self.suite.caption(self.split, index, replace(given, shown_by=about))

    def truth(self, index: int) -> Truth:
        """Return the facts and impacts of a scene."""
        return self.suite.truth(self.split, index)

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what the world's oracle reads."""
        return self.suite.read(modality, items)

    def medium(self, index: int, modality: str) -> Any:
        """Return a rendered medium."""
        rendered = self.suite.medium(self.split, index, modality)
        return self.config.media(modality).load(rendered)[0]


_CLIP = "video"


def _in_clip(example: Example) -> bool:
    return _CLIP in example.files


def _sounding(example: Example) -> bool:
    """Tell whether an item's video has a sound track."""
    try:
        return _in_clip(example) and media.has_audio(example.files[_CLIP])
    except media.MediaError:
        return False


_FOUND: Mapping[str, Callable[[Example], bool]] = {
    "text": lambda example: bool(example.captions),
    "image": _in_clip,
    "audio": _sounding,
}
"""Where else a medium may come from, when it has no file of its own."""


def _has(example: Example, name: str) -> bool:
    return name in example.files or (name in _FOUND and _FOUND[name](example))
