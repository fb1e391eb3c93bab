"""Stores on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi.config import ConfigError
from codi.data.source import Caption, Record, Source
from codi.data.store import open_store


class Squares(Source):
    """Three items that count how often they are read, and can fail."""

    def __init__(self, count: int = 3, fails_at: int | None = None, odd: int | None = None) -> None:
        self.count, self.fails_at, self.odd = count, fails_at, odd
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    @property
    def fingerprint(self) -> str:
        return "squares"

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        self.reads += 1
        if index == self.fails_at:
            raise OSError("the disk is full")
        arrays = {"audio": np.full(4, index**2, np.int16)}
        if index == self.odd:
            arrays["video"] = np.zeros((2, 4, 4, 3), np.uint8)
        return arrays, {"root": index}

    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        return Caption("", None)

    def matches(self, claims: Sequence[Any], records: Sequence[Record]) -> np.ndarray:
        return np.zeros((len(claims), len(records)), bool)


def test_a_store_holds_every_item(tmp_path: Path) -> None:
    store = open_store(Squares(), tmp_path)
    assert len(store) == 3
    assert store.records == [{"root": 0}, {"root": 1}, {"root": 2}]
    assert store.arrays["audio"].tolist() == [[0] * 4, [1] * 4, [4] * 4]


def test_several_processes_build_the_same_store(tmp_path: Path) -> None:
    one = open_store(Squares(150), tmp_path / "one")
    two = open_store(Squares(150), tmp_path / "two", workers=2)
    assert one.records == two.records
    assert np.array_equal(one.arrays["audio"], two.arrays["audio"])
    with pytest.raises(ConfigError, match="item 70 has audio, video"):
        open_store(Squares(150, odd=70), tmp_path / "three", workers=2)


class Held(Squares):
    """Items of which each says whether its process hears Ctrl-C; they stay where they are."""

    def __reduce__(self) -> Any:
        raise TypeError("a source of many items is not to travel with every few of them")

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        arrays, record = super().read(index)
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return arrays, record | {"here": os.getpid() == self.reader, "ignored": ignored}

    reader = os.getpid()


def test_processes_are_told_rows_alone_and_leave_interrupts_to_the_first(tmp_path: Path) -> None:
    store = open_store(Held(70), tmp_path, workers=2)
    assert [record["root"] for record in store.records] == list(range(70))
    assert all(record["ignored"] and not record["here"] for record in store.records)


def test_a_store_is_built_once(tmp_path: Path) -> None:
    open_store(Squares(), tmp_path)
    again = Squares()
    assert open_store(again, tmp_path).arrays["audio"][2, 0] == 4
    assert again.reads == 0


def test_a_store_that_was_not_finished_is_built_anew(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        open_store(Squares(fails_at=2), tmp_path)
    assert not (tmp_path / "squares").exists()
    assert len(open_store(Squares(), tmp_path)) == 3
    assert sorted(os.listdir(tmp_path)) == ["squares", "squares.lock"]  # noqa: PTH208


def test_progress_is_shown_item_by_item(tmp_path: Path) -> None:
    shown: list[tuple[str, int]] = []

    def progress(what: str, count: int) -> Iterable[int]:
        for i in range(count):
            shown.append((what, i))
            yield i

    open_store(Squares(), tmp_path, progress)
    assert shown == [("preparing squares", i) for i in range(3)]


def test_items_have_the_same_media(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="item 1 has audio, video, and the first has audio"):
        open_store(Squares(odd=1), tmp_path)


def test_a_source_without_items_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the data source has no items"):
        open_store(Squares(count=0), tmp_path)


def test_latents_are_encoded_once_for_each_codec(tmp_path: Path) -> None:
    store = open_store(Squares(), tmp_path)
    calls = []

    def encode(arrays: np.ndarray) -> np.ndarray:
        calls.append(len(arrays))
        return arrays[:, :2].astype(np.float32) / 2

    assert store.latents("audio", "mark") is None
    latents = store.cache_latents("audio", "mark", encode, batch=2)
    assert latents.dtype == np.float16
    assert latents.tolist() == [[0, 0], [0.5, 0.5], [2, 2]]
    assert calls == [2, 1]
    assert store.cache_latents("audio", "mark", encode).tolist() == latents.tolist()
    assert calls == [2, 1]
    store.cache_latents("audio", "another codec", encode)
    assert calls == [2, 1, 3]
    assert set(open_store(Squares(), tmp_path).arrays) == {"audio"}


def test_latents_that_were_not_finished_are_not_there(tmp_path: Path) -> None:
    store = open_store(Squares(), tmp_path)

    def encode(arrays: np.ndarray) -> np.ndarray:
        raise RuntimeError("the codec is broken")

    with pytest.raises(RuntimeError, match="the codec is broken"):
        store.cache_latents("audio", "mark", encode)
    assert store.latents("audio", "mark") is None


# --- two processes at once ---

OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from codi.data.store import open_store
from tests.data.test_store import Squares, halves

folder, out = Path({folder!r}), Path({out!r})
source = Squares()

def progress(what, count):
    with out.open("a") as file:
        file.write(what + chr(10))
    yield from range(count)

store = open_store(source, folder, progress)
latents = store.cache_latents("audio", "mark", halves, progress)
with out.open("a") as file:
    file.write(f"{{source.reads}} reads, {{latents.sum()}}" + chr(10))
"""


def halves(arrays: np.ndarray) -> np.ndarray:
    return arrays / 2


def test_of_two_processes_one_makes_what_the_other_waits_for(tmp_path: Path) -> None:
    folder, out = tmp_path / "cache", tmp_path / "said"
    root = str(Path(__file__).parents[2])
    script = OTHER.format(root=root, folder=str(folder), out=str(out))
    other: subprocess.Popen[bytes] | None = None

    def progress(what: str, count: int) -> Iterable[int]:
        nonlocal other
        for i in range(count):
            if other is None:  # begin it when this process is half-way through its store
                other = subprocess.Popen([sys.executable, "-c", script])
                while not out.exists():
                    assert other.poll() is None
                    time.sleep(0.01)
            yield i

    store = open_store(Squares(), folder, progress)
    assert other is not None
    assert other.wait() == 0
    assert store.arrays["audio"][2, 0] == 4
    said = out.read_text().splitlines()
    assert said[0] == "waiting for another process to make squares"
    assert said[-1] == "0 reads, 10.0"
    latents = open_store(Squares(), folder).latents("audio", "mark")
    assert latents is not None
    assert latents.sum() == 10
