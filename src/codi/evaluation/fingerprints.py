"""Which weights a number is of: digests of a model's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from codi.build import ModelConfig
from codi.evaluation.extractors.base import file_digest
from codi.weights import missing_parts, part_files


class WeightDigests:
    """Digests of a model's files, each taken once: a model in training may change meanwhile.

    Args:
        folder: of the model.
        config: what it says it is.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder, self.config = folder, config
        self._taken: dict[Path, str] = {}

    def of(self, parts: Iterable[str]) -> dict[str, str]:
        """Return the digest of every file of parts ("role.name"), by its path in the folder."""
        files = [path for part in parts for path in part_files(self.folder, part)]
        return {str(path.relative_to(self.folder)): self._digest(path) for path in files}

    def whole(self) -> str:
        """Return one digest of all of the model's weights."""
        absent = missing_parts(self.folder, self.config)
        digests = self.of(part for part in self.config.parts() if part not in absent)
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def _digest(self, path: Path) -> str:
        if path not in self._taken:
            self._taken[path] = file_digest(path)[:16]
        return self._taken[path]
