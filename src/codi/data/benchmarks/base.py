"""The contract of a published data set, in the layout in which it is distributed.

A reader finds files and captions; it decodes nothing, and downloads nothing. Knows no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codi.config import ConfigError, unknown


@dataclass(frozen=True)
class Example:
    """One item.

    Attributes:
        key: what the data set calls it.
        captions: by people, at least one.
        files: by modality; a video's sound track and its frames are found through "video".
    """

    key: str
    captions: tuple[str, ...]
    files: dict[str, Path] = field(default_factory=dict)


class Benchmark(ABC):
    """A data set that is published with fixed splits.

    Attributes:
        name: what suites call it; a folder of this name below the data folder is looked into.
        marks: paths one of which its folder holds.
        splits: their names.
        instructions: how to get it, in one line.
    """

    name: str
    marks: tuple[str, ...]
    splits: tuple[str, ...]
    instructions: str

    def examples(self, root: Path | None, split: str) -> list[Example]:
        """Return the items of a split, in the order of the data set's own lists.

        Items whose media are not there (videos disappear from the web) are left out.

        Args:
            root: its folder, or one that holds it.
            split: one of `splits`.

        Raises:
            ConfigError: an unknown split, no such folder, or nothing in it.
        """
        if split not in self.splits:
            raise ConfigError(unknown(f"split of {self.name}:", split, self.splits))
        found = [e for e in self.read(self.folder(root), split) if e.files and e.captions]
        if not found:
            raise ConfigError(
                f"{self.folder(root)}: no media of {self.name}'s split {split!r} are there; "
                f"{self.instructions}"
            )
        return found

    def folder(self, root: Path | None) -> Path:
        """Return the data set's folder.

        Raises:
            ConfigError: there is none, with how to get it.
        """
        places = [] if root is None else [root, root / self.name]
        for place in places:
            if any((place / mark).exists() for mark in self.marks):
                return place
        where = "the folder of --data" if root is None else " or ".join(map(str, places))
        raise ConfigError(
            f"there is no {self.name} in {where} (no {' or '.join(self.marks)}); "
            f"{self.instructions}"
        )

    @abstractmethod
    def read(self, folder: Path, split: str) -> Iterable[Example]:
        """Return the items of a split, with the files that exist."""


def existing(candidates: Iterable[Path]) -> Path | None:
    """Return the first path that is a file."""
    return next((path for path in candidates if path.is_file()), None)


def first_of(folder: Path, names: Sequence[str], instructions: str) -> Path:
    """Return the first of some files in a folder.

    Raises:
        ConfigError: none of them is there.
    """
    found = existing(folder / name for name in names)
    if found is None:
        raise ConfigError(f"{folder}: there is no {' or '.join(names)}; {instructions}")
    return found
