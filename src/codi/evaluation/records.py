"""What was read from one sample, and the files that remember it, so that nothing is made twice.

Facts and words are lines of JSON; features of networks are rows of plain numbers beside them, read
from disk as they are needed, so that any number of samples fits in memory.
"""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reading:
    """What one generated object shows.

    Attributes:
        facts: what was recognised; a fact that could not be is left out.
        impacts_s: when something strikes, in seconds, as the items' own reader says; None for what
            has no time.
        words: the object itself, where it is written.
        peaks_s: onsets of a sound and peaks of motion in a clip, in seconds, which AV-Align
            compares; None where no metric asks for them.
    """

    facts: dict[str, str]
    impacts_s: tuple[float, ...] | None = None
    words: str | None = None
    peaks_s: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Record:
    """One sample of a task: what was true of its item, and what its outputs show."""

    index: int
    facts: dict[str, str]
    impacts_s: tuple[float, ...] | None
    readings: dict[str, Reading]


def _from_json(table: dict[str, Any]) -> Record:
    readings = {
        name: Reading(r["facts"], _times(r["impacts_s"]), r["words"], _times(r.get("peaks_s")))
        for name, r in table["readings"].items()
    }
    return Record(table["index"], table["facts"], _times(table["impacts_s"]), readings)


def _times(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


class Ledger:
    """Records of one task, split and setting, a JSON line each, added batch by batch.

    Features of a kind lie in a file of their own: float32, row i at the place of record i. Its name
    ends in the shape of a row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[int, Record] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = _from_json(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue  # a line that was being written when the process died
                self.records[record.index] = record

    def missing(self, count: int) -> list[int]:
        """Return the numbers below `count` without a record."""
        return [index for index in range(count) if index not in self.records]

    def first(self, count: int) -> list[Record]:
        """Return the records below `count` that there are, in order."""
        return [self.records[index] for index in sorted(self.records) if index < count]

    def add(
        self, records: Iterable[Record], features: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Remember records, and features (n, ...) of them by kind, on disk first."""
        new = list(records)
        for kind, rows in (features or {}).items():
            self._write(kind, [record.index for record in new], rows)
        lines = "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in new)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The line before may have been cut off: an empty line harms nobody.
            file.write(("\n" if file.tell() else "") + lines)
        self.records.update({record.index: record for record in new})

    def _write(self, kind: str, indices: Sequence[int], rows: np.ndarray) -> None:
        """Write rows at the places of their records."""
        if len(rows) != len(indices):
            raise ValueError(f"{len(rows)} rows of {kind} for {len(indices)} records")
        shape = "x".join(map(str, rows.shape[1:]))
        path = self.path.with_name(f"{self.path.stem}.{kind}-{shape}.f32")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as file:
            for index, row in zip(indices, rows.astype("<f4"), strict=True):
                file.seek(index * row.nbytes)
                file.write(row.tobytes())

    def rows(self, kind: str, count: int) -> np.ndarray:
        """Return the features (count, ...) of a kind, read from disk where they are used.

        Raises:
            KeyError: no records with features of this kind.
        """
        found = sorted(self.path.parent.glob(f"{glob.escape(f'{self.path.stem}.{kind}')}-*.f32"))
        if not found:
            raise KeyError(kind)
        shape = tuple(int(n) for n in found[0].stem.rpartition("-")[2].split("x"))
        return np.memmap(found[0], "<f4", "r", shape=(count, *shape))
