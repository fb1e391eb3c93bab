"""Tar shards in the WebDataset layout, as an index of where each member lies.

Members of one item share a key and follow each other: `KEY.json`, `KEY.image.webp`. The key is the
path up to the first dot of the file's own name, what follows is the ending, in small letters. No
member of a plain tar file is held in memory. It knows no media.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codi.config import ConfigError

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")
_UNREADABLE = (OSError, EOFError, tarfile.TarError, zlib.error)


class ItemError(ConfigError):
    """What is wrong with one item of a shard, while the others can be used."""


@dataclass(frozen=True)
class Member:
    """Bytes of a file: `size` of them from `offset`, or those `held` where it is compressed."""

    file: Path
    offset: int
    size: int
    held: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            ConfigError: the file is gone, or shorter than it was.
        """
        if self.held is not None:
            return self.held
        try:
            with self.file.open("rb") as handle:
                handle.seek(self.offset)
                data = handle.read(self.size)
        except OSError as error:
            raise _damaged(self.file, error.strerror) from error
        if len(data) < self.size:
            raise _damaged(self.file, "it ends early")
        return data


@dataclass(frozen=True)
class Item:
    """What shares a key: members by ending ("json", "audio.flac", ...)."""

    file: Path
    key: str
    members: dict[str, Member] = field(default_factory=dict)

    def named(self, name: str, endings: Sequence[str]) -> Member | None:
        """Return the member `KEY.name.*`, or else the one with one of the bare `endings`."""
        for ending, member in self.members.items():
            if ending.startswith(f"{name}."):
                return member
        return next((self.members[e] for e in endings if e in self.members), None)

    def record(self) -> dict[str, Any]:
        """Return what the item's JSON says, with its `txt` as caption and its `cls` as class.

        Raises:
            ItemError: a damaged record.
            ConfigError: a damaged shard.
        """
        try:
            table = json.loads(self.members["json"].read()) if "json" in self.members else {}
            if not isinstance(table, dict):
                raise ValueError("not a JSON object")
            if "txt" in self.members:
                table.setdefault("text", self.members["txt"].read().decode("utf-8").strip())
            if "cls" in self.members:
                table.setdefault("class", int(self.members["cls"].read()))
        except ConfigError:
            raise
        except ValueError as error:
            raise ItemError(
                f"{self.file}: item {self.key!r}: its record is damaged ({error}); mend or leave "
                "out the item"
            ) from error
        return table


def index_shard(file: Path) -> list[Item]:
    """Return the items of a shard, in its order.

    A compressed shard cannot be read at random: its members are held in memory.

    Raises:
        ConfigError: not a tar file, damaged, cut off, or with two members of one name in an item.
    """
    items: list[Item] = []
    try:
        for name, member in _members(file):
            match = None if _META.match(name) else _NAME.fullmatch(name)
            if match is None:
                continue
            key, ending = match[1], match[2].lower()
            if not items or items[-1].key != key:
                items.append(Item(file, key))
            if ending in items[-1].members:
                raise ConfigError(f"{file}: {name} is in it twice; leave one of them out")
            items[-1].members[ending] = member
    except _UNREADABLE as error:
        raise _damaged(file, error) from error
    return items


def _members(file: Path) -> Iterator[tuple[str, Member]]:
    """Yield the names and places of a tar file's regular members."""
    try:
        archive = tarfile.open(file, "r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError as error:
        yield from _held_members(file, error)
        return
    with archive:
        for info in archive:
            if info.isreg() and not info.issparse():
                yield info.name, Member(file, info.offset_data, info.size)
        # A damaged header looks like the end to `tarfile`; the true end is zeros, or nothing.
        with file.open("rb") as handle:
            handle.seek(archive.offset)
            if handle.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a damaged header")


def _held_members(file: Path, refused: tarfile.ReadError) -> Iterator[tuple[str, Member]]:
    """Yield the names and contents of a compressed tar file's regular members.

    Raises:
        ReadError: `refused`, where it is not compressed either.
    """
    try:
        archive = tarfile.open(file)  # noqa: SIM115 - closed below
    except tarfile.ReadError:
        raise refused from None
    with archive:
        for info in archive:
            handle = archive.extractfile(info) if info.isreg() else None
            if handle is not None:
                data = handle.read()
                yield info.name, Member(file, 0, len(data), data)


def _damaged(file: Path, reason: object) -> ConfigError:
    return ConfigError(f"{file}: damaged or unreadable ({reason}); fetch it again")
