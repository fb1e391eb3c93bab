"""The folder that `codi generate` writes: numbered samples and `manifest.json`.

Samples are collected in a hidden folder inside and published together with their manifest: an
earlier run's, and then all of its files, give way to it at once. Who is killed before leaves the
folder as it was; who is killed amid it leaves the rest to the next run, which begins by finishing
it. It knows nothing of models.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codi.config import ConfigError
from codi.locking import locked, uninterrupted
from codi.media import atomic_write_text
from codi.modalities.base import MediaType, modality

MANIFEST = "manifest.json"
_HIDDEN = ".codi-generate"
_SAMPLE_FILE = re.compile(r"\d{3,}-[^/\\]+")


class OutputFolder:
    """A folder of samples, held by one run: a context that cleans up behind it.

    Attributes:
        path: of the folder.
        holds_earlier: whether an earlier run's manifest lies there.

    Raises:
        ConfigError: the folder cannot be made, holds a manifest that `codi` did not write, or
            another process is at work on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _read_run(path / MANIFEST)  # the folder of something else stays as it is
        self._hidden = path / _HIDDEN
        self._new, self._whole = self._hidden / "new", self._hidden / "whole"
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        self._lock = ExitStack()
        self._written: set[str] = set()
        # A folder may exist and yet take no files: better known before the work than after it.
        try:
            self._hold()
            _bring(self._whole, path)
            shutil.rmtree(self._new, ignore_errors=True)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"{path}: cannot be written to: {error.strerror}; choose another folder with --out"
            ) from error
        self._earlier = _read_run(path / MANIFEST)
        self._stays = {file for file in self._earlier.left_over if (path / file).exists()}
        self.holds_earlier = (path / MANIFEST).exists()

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _hold(self) -> None:
        # What another run has not finished yet looks like what a killed one left: never clear both.
        try:
            self._lock.enter_context(locked(self._hidden / "lock"))
        except ConfigError as error:
            raise ConfigError(
                f"{self.path}: another process is writing to it; wait until it has ended, or "
                "choose another folder with --out"
            ) from error

    def reserve(self, numbers: Iterable[int], names: Iterable[str], reads: Iterable[Path]) -> None:
        """Make sure that the samples to come replace nothing but samples of earlier runs.

        Args:
            numbers: of the samples.
            names: of their modalities.
            reads: files that this run reads: they stay.

        Raises:
            ConfigError: a file is read, or is not of an earlier run, and would be replaced.
        """
        read, names = {path.resolve() for path in reads}, list(names)
        known = self._earlier.files | self._earlier.left_over
        for file in (_file_name(number, name) for number in numbers for name in names):
            path = self.path / file
            if path.resolve() in read:
                raise ConfigError(
                    f"{path}: is read by this run, which would replace it; choose another folder "
                    "with --out"
                )
            if file not in known and path.exists():
                raise ConfigError(
                    f"{path}: is there, and no manifest says that it is of an earlier run; choose "
                    "another folder with --out"
                )
        self._stays |= {
            file for file in self._earlier.files if (self.path / file).resolve() in read
        }

    @property
    def left_over(self) -> list[str]:
        """Return the files of earlier runs that stay beside this one's: a run read them."""
        return sorted(self._stays - self._written)

    def write_sample(
        self, number: int, items: Mapping[str, Any], media: Mapping[str, MediaType]
    ) -> dict[str, str]:
        """Write the objects of one sample, to be published; return their file names by modality."""
        names = {name: _file_name(number, name) for name in items}
        self._new.mkdir(exist_ok=True)
        for name, item in items.items():
            media[name].save(item, self._new / names[name])
        self._written.update(names.values())
        return names

    def publish(self, manifest: Mapping[str, Any]) -> list[str]:
        """Bring the samples that a manifest lists, and itself, to their place, all or nothing.

        Ctrl-C and SIGTERM wait for the end of it.

        Returns:
            The names of the earlier run's files that were removed.

        Raises:
            MediaError: the manifest cannot be written; the folder is as it was.
        """
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        with uninterrupted():
            removed = _bring(self._whole, self.path)  # what failed half-way, where anything did
            self._new.mkdir(exist_ok=True)
            atomic_write_text(self._new / MANIFEST, text)
            self._new.replace(self._whole)  # from here on, the next run would finish it
            return removed + _bring(self._whole, self.path)

    def close(self) -> None:
        """Remove what was not published, and the folders that were made for nothing."""
        if not self._whole.exists():  # else the next run finishes what stopped half-way
            shutil.rmtree(self._hidden, ignore_errors=True)
        self._lock.close()
        for folder in self._made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@dataclass(frozen=True)
class _Run:
    """The files that a manifest lists: of its samples, and of earlier runs that stay beside them.

    Only names such as `000-image.png` count: a manifest never leads to another folder.
    """

    files: frozenset[str] = frozenset()
    left_over: frozenset[str] = frozenset()


def _file_name(number: int, name: str) -> str:
    return f"{number:03d}-{name}.{modality(name).suffix}"


def _read_run(manifest: Path) -> _Run:
    """Return what a manifest lists; nothing where there is none.

    Raises:
        ConfigError: `codi generate` did not write it.
    """
    if not manifest.exists():
        return _Run()
    try:
        table = json.loads(manifest.read_text(encoding="utf-8"))
        samples: Iterable[Mapping[str, Any]] = table["samples"]
        files = [file for sample in samples for file in sample["files"].values()]
        return _Run(_sample_files(files), _sample_files(table["left_over"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{manifest}: was not written by codi generate; choose another folder with --out"
        ) from error


def _sample_files(names: Iterable[Any]) -> frozenset[str]:
    return frozenset(
        file for file in names if isinstance(file, str) and _SAMPLE_FILE.fullmatch(file)
    )


def _bring(whole: Path, path: Path) -> list[str]:
    """Move the run in the folder `whole` to `path`, in place of the one there.

    It may be done again after it was killed half-way: the manifest, which says what there is to do,
    moves last.

    Returns:
        The names of the files that were removed.
    """
    removed: list[str] = []
    if (whole / MANIFEST).exists():
        new, old = _read_run(whole / MANIFEST), _read_run(path / MANIFEST)
        for file in sorted(new.files):
            if (whole / file).exists():
                (whole / file).replace(path / file)
        for file in sorted(old.files - new.files - new.left_over):
            if (path / file).exists():
                (path / file).unlink()
                removed.append(file)
        (whole / MANIFEST).replace(path / MANIFEST)
    shutil.rmtree(whole, ignore_errors=True)
    return removed
