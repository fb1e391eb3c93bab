"""What was read from one sample, and the files that remember it, so that nothing is made twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reading:
    """What one generated object shows.

    Attributes:
        facts: what was recognised; a fact that could not be is left out.
        impacts_s: when something strikes, in seconds; None for what has no time.
        words: the object itself, where it is written.
    """

    facts: dict[str, str]
    impacts_s: tuple[float, ...] | None = None
    words: str | None = None


@dataclass(frozen=True)
class Record:
    """One sample of a task: what was true of its item, and what its outputs show."""

    index: int
    facts: dict[str, str]
    impacts_s: tuple[float, ...] | None
    readings: dict[str, Reading]


def _from_json(table: dict[str, Any]) -> Record:
    readings = {
        name: Reading(r["facts"], _times(r["impacts_s"]), r["words"])
        for name, r in table["readings"].items()
    }
    return Record(table["index"], table["facts"], _times(table["impacts_s"]), readings)


def _times(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


class Ledger:
    """Records of one task, split and setting, a JSON line each, added batch by batch."""

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

    def add(self, records: Iterable[Record]) -> None:
        """Remember records, on disk first."""
        new = list(records)
        lines = "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in new)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The line before may have been cut off: an empty line harms nobody.
            file.write(("\n" if file.tell() else "") + lines)
        self.records.update({record.index: record for record in new})
