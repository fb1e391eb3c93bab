"""Safetensors files written tensor by tensor: no more than one of them is ever in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codi.config import ConfigError
from codi.convert.reading import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


METADATA = {"format": "pt"}
"""What a file that is written here says of itself; one that `codi.weights` writes says nothing."""


def is_written_here(path: Path) -> bool:
    """Say whether a file of ours was written by `TensorFile`, and not by training.

    A damaged file is of no use to anyone, and may be replaced as if it were. One that cannot be
    opened, for want of a right to read it say, may hold what was trained.
    """
    try:
        with safe_open(path, framework="pt") as archive:
            return bool(archive.metadata() == METADATA)
    except SafetensorError:
        return True
    except OSError:
        return False


@dataclass(frozen=True)
class Slot:
    """Shape and type of a tensor that will be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def total_bytes(slots: Iterable[Slot]) -> int:
    """Return the size in bytes of all slots."""
    return sum(slot.nbytes for slot in slots)


class TensorFile:
    """A safetensors file with a place for every tensor, to be filled in any order.

    Used as a context; leaving it checks that every place was filled.
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot]) -> None:
        self.path, self.slots = path, dict(slots)
        # Wide types first: then every tensor lies at a multiple of its type's size, as a reader
        # that maps the file needs.
        order = sorted(self.slots, key=lambda name: -self.slots[name].dtype.itemsize)
        header: dict[str, Any] = {"__metadata__": METADATA}
        self._start: dict[str, int] = {}
        end = 0
        for name in order:
            slot = self.slots[name]
            self._start[name], end = end, end + slot.nbytes
            header[name] = {
                "dtype": _NAMES[slot.dtype],
                "shape": list(slot.shape),
                "data_offsets": [self._start[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self._left = set(self.slots)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + end)

    def write(self, name: str, tensor: Tensor) -> None:
        """Fill the place of a tensor.

        Raises:
            ConfigError: it is of another shape or type than its place.
        """
        slot = self.slots[name]
        if tuple(tensor.shape) != slot.shape or tensor.dtype != slot.dtype:
            raise ConfigError(
                f"{self.path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, and its place "
                f"{slot.dtype} {slot.shape}; report this"
            )
        self._file.seek(self._data + self._start[name])
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        self._file.write(data.numpy().data)
        self._left.discard(name)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._left:
                    raise ConfigError(
                        f"{self.path}: {min(self._left)} was not written; report this"
                    )
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
