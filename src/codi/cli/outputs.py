"""The folder that `codi generate` writes: numbered samples and `manifest.json`.

A sample's files are made in a temporary folder inside and moved in when all of them are there.
Files of an earlier run with other numbers are removed only after the new run has succeeded, and
never those that it read. It knows nothing of models.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codi.config import ConfigError
from codi.media import atomic_write_text
from codi.modalities.base import MediaType, modality

MANIFEST = "manifest.json"
_SAMPLE_FILE = re.compile(r"\d{3,}-[^/\\]+")


class OutputFolder:
    """A folder of samples.

    Raises:
        ConfigError: the folder cannot be made, or holds a manifest that `codi` did not write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier = _earlier_files(path / MANIFEST)
        self.written: set[str] = set()
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A folder may exist and yet take no files: better known before the work than after it.
            with tempfile.TemporaryDirectory(prefix=".codi-", dir=path):
                pass
        except OSError as error:
            self.forsake()
            raise ConfigError(
                f"{path}: cannot be written to: {error.strerror}; choose another folder with --out"
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
        read = {path.resolve() for path in reads}
        names, foreign = list(names), not (self.path / MANIFEST).exists()
        for file in (_file_name(number, name) for number in numbers for name in names):
            path = self.path / file
            if path.resolve() in read:
                raise ConfigError(
                    f"{path}: is read by this run, which would replace it; choose another folder "
                    "with --out"
                )
            if foreign and path.exists():
                raise ConfigError(
                    f"{path}: is there, and no manifest says that it is of an earlier run; choose "
                    "another folder with --out"
                )
        self.earlier = {file for file in self.earlier if (self.path / file).resolve() not in read}

    @property
    def left_over(self) -> list[str]:
        """Return the files of earlier runs that this one has not replaced."""
        return sorted(self.earlier - self.written)

    def write_sample(
        self, number: int, items: Mapping[str, Any], media: Mapping[str, MediaType]
    ) -> dict[str, str]:
        """Write the objects of one sample and return their file names by modality."""
        names = {name: _file_name(number, name) for name in items}
        with tempfile.TemporaryDirectory(prefix=".codi-", dir=self.path) as made:
            for name, item in items.items():
                media[name].save(item, Path(made) / names[name])
            for file in names.values():
                (Path(made) / file).replace(self.path / file)
                self.written.add(file)
        return names

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, all or nothing."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        atomic_write_text(self.path / MANIFEST, text)

    def remove_left_over(self) -> list[str]:
        """Remove the files of earlier runs that were not replaced; return their names."""
        removed = self.left_over
        for file in removed:
            (self.path / file).unlink(missing_ok=True)
        self.earlier = set()
        return removed

    def forsake(self) -> None:
        """Remove the folders that were made for nothing."""
        for folder in self._made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _file_name(number: int, name: str) -> str:
    return f"{number:03d}-{name}.{modality(name).suffix}"


def _earlier_files(manifest: Path) -> set[str]:
    """Return the sample files that an earlier run left, as its manifest says.

    Only names such as `000-image.png` count: a manifest never leads to another folder.
    """
    if not manifest.exists():
        return set()
    try:
        table = json.loads(manifest.read_text(encoding="utf-8"))
        samples: Iterable[Mapping[str, Any]] = table["samples"]
        files = [file for sample in samples for file in sample["files"].values()]
        files += table["left_over"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{manifest}: was not written by codi generate; choose another folder with --out"
        ) from error
    return {file for file in files if isinstance(file, str) and _SAMPLE_FILE.fullmatch(file)}
