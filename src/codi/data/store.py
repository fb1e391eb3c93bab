"""Items on disk as memory-mapped arrays: decoded or rendered once, read at random for ever.

A store is a folder: one `.npy` for each modality, `records.json`, and, once a codec is trained,
`latents-<modality>-<codec>.npy`. It is built under another name and renamed when complete. Of
several processes that want the same store or latents, the first makes them and the others wait.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from codi.config import ConfigError
from codi.data.source import Record, Source
from codi.locking import locked
from codi.media import atomic_path, atomic_write_text
from codi.progress import Progress, quiet


class Store:
    """The arrays and records of one source."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder = folder
        self.source = source
        self.records: list[Record] = json.loads((folder / "records.json").read_text())
        self.arrays = {
            path.stem: np.load(path, mmap_mode="r")
            for path in sorted(folder.glob("*.npy"))
            if not path.stem.startswith("latents-")
        }

    def __len__(self) -> int:
        return len(self.records)

    def latents(self, modality: str, codec: str) -> np.ndarray | None:
        """Return the cached latents of a modality made by the codec with this fingerprint."""
        path = self._latent_file(modality, codec)
        return np.load(path, mmap_mode="r") if path.is_file() else None

    def cache_latents(
        self,
        modality: str,
        codec: str,
        encode: Callable[[np.ndarray], np.ndarray],
        progress: Progress = quiet,
        batch: int = 32,
    ) -> np.ndarray:
        """Encode every array of a modality once, in half precision, and return the result."""
        cached = self.latents(modality, codec)
        if cached is not None:
            return cached
        path = self._latent_file(modality, codec)
        with _alone(path, progress):
            if not path.is_file():  # nor did another process make it meanwhile
                self._encode(path, self.arrays[modality], modality, encode, progress, batch)
        return np.load(path, mmap_mode="r")

    def _encode(
        self,
        path: Path,
        array: np.ndarray,
        modality: str,
        encode: Callable[[np.ndarray], np.ndarray],
        progress: Progress,
        batch: int,
    ) -> None:
        """Write the latents of an array, all or nothing."""
        with atomic_path(path) as temporary:
            out: np.memmap | None = None
            for i in progress(f"encoding {modality}", -(-len(array) // batch)):
                z = encode(array[i * batch : (i + 1) * batch]).astype(np.float16)
                if out is None:
                    shape = (len(array), *z.shape[1:])
                    out = open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
                out[i * batch : i * batch + len(z)] = z
            if out is None:
                raise ValueError(f"{self.folder}: no {modality} to encode")
            out.flush()
            del out

    def _latent_file(self, modality: str, codec: str) -> Path:
        return self.folder / f"latents-{modality}-{codec}.npy"


def open_store(source: Source, cache: Path, progress: Progress = quiet, workers: int = 1) -> Store:
    """Return the store of a source below `cache`, building it the first time.

    Args:
        source: what is read.
        cache: folder of stores.
        progress: shows the items.
        workers: processes that read items side by side.
    """
    folder = cache / source.fingerprint
    if not (folder / "records.json").is_file():
        with _alone(folder, progress):
            if not (folder / "records.json").is_file():  # nor did another process make it meanwhile
                _build(source, folder, progress, workers)
    return Store(folder, source)


def _alone(target: Path, progress: Progress) -> AbstractContextManager[None]:
    """Keep other processes from making `target` as well; wait while one of them does."""
    return locked(target.with_name(f"{target.name}.lock"), progress)


def _build(source: Source, folder: Path, progress: Progress, workers: int) -> None:
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    if not len(source):
        raise ConfigError(f"{source.fingerprint}: the data source has no items; leave it out")
    partial.mkdir(parents=True)
    for name, value in source.read(0)[0].items():
        shape = (len(source), *value.shape)
        open_memmap(partial / f"{name}.npy", mode="w+", dtype=value.dtype, shape=shape)
    chunks = [range(i, min(i + _CHUNK, len(source))) for i in range(0, len(source), _CHUNK)]
    with ExitStack() as stack:
        write = functools.partial(_write, source, partial)
        written: Iterator[list[Record]] = map(write, chunks)
        if workers > 1:
            fork = multiprocessing.get_context("fork")  # which hands the source over as it is
            pool = stack.enter_context(fork.Pool(workers, _begin_work, (write,)))
            written = pool.imap(_work, chunks)
        found = itertools.chain.from_iterable(written)
        records = [next(found) for _ in progress(f"preparing {source.fingerprint}", len(source))]
    atomic_write_text(partial / "records.json", json.dumps(records))
    partial.replace(folder)


_CHUNK = 32
"""Items that a process writes before it says so."""

_Write = Callable[[range], list[Record]]
_OWN: list[_Write] = []
"""In a process that works for another: what it does with its rows."""


def _begin_work(write: _Write) -> None:
    """Keep what the rows are for, so that they alone travel; leave Ctrl-C to who began this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _OWN.append(write)


def _work(rows: range) -> list[Record]:
    [write] = _OWN
    return write(rows)


def _write(source: Source, folder: Path, rows: range) -> list[Record]:
    """Read some items into the arrays of a store that is being built; return their records."""
    arrays = {path.stem: np.load(path, mmap_mode="r+") for path in folder.glob("*.npy")}
    records = []
    for index in rows:
        item, record = source.read(index)
        if item.keys() != arrays.keys():
            raise ConfigError(
                f"{source.fingerprint}: item {index} has {', '.join(sorted(item))}, and the first "
                f"has {', '.join(sorted(arrays))}; keep items with other media in a source of "
                "their own"
            )
        for name, value in item.items():
            arrays[name][index] = value
        records.append(record)
    return records
