"""Batches for training, drawn from a mixture of stores.

A batch is a pure function of (seed, step): a run that is stopped and resumed sees the very batches
it would have seen. It knows modality names only through the registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codi.build import ModelConfig
from codi.config import ConfigError
from codi.data.source import Caption, Record, Source
from codi.data.store import Store
from codi.modalities import modality
from codi.types import Latents, Media


@dataclass(frozen=True)
class Wanted:
    """What a task reads from a batch.

    Attributes:
        media: modalities whose media it takes; latents: whose cached latents.
        captions: modalities one of which, drawn for each sample, the caption is a caption of.
        complete: share of the captions that tell everything their modality shows.
    """

    media: tuple[str, ...] = ()
    latents: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    complete: float = 0.0


@dataclass
class Batch:
    """B samples: media and latents by modality name, captions, and the means to write more.

    Attributes:
        records: of the samples; origins: the index in `sources` of each one's source.
    """

    media: dict[str, Media] = field(default_factory=dict)
    latents: Latents = field(default_factory=dict)
    captions: list[Caption] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    sources: Sequence[Source] = ()
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def __len__(self) -> int:
        return len(self.records)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process gets: all but the sources, which it has."""
        return self.__dict__ | {"sources": ()}

    @property
    def texts(self) -> list[str]:
        """Return the captions' sentences."""
        return [caption.text for caption in self.captions]

    def write_captions(self, shown_by: Sequence[str], complete: float = 0.0) -> list[Caption]:
        """Write a further caption for every sample, each of a modality drawn from `shown_by`.

        A share of them, `complete`, tells everything that the modality shows.
        """
        drawn = [shown_by[i] for i in self.rng.integers(len(shown_by), size=len(self))]
        whole = (self.rng.random(len(self)) < complete).tolist()
        return [
            self.sources[origin].caption(record, shown, self.rng, everything)
            for origin, record, shown, everything in zip(
                self.origins, self.records, drawn, whole, strict=True
            )
        ]

    def matches(self, captions: Sequence[Caption]) -> Tensor:
        """Return bool (B, B): whether caption i is true of sample j."""
        out = np.zeros((len(self), len(self)), dtype=bool)
        for origin, source in enumerate(self.sources):
            rows = [i for i, o in enumerate(self.origins) if o == origin]
            if rows:
                claims = [captions[i].claim for i in rows]
                out[np.ix_(rows, rows)] = source.matches(claims, [self.records[i] for i in rows])
        return torch.from_numpy(out)


def keyed_generator(*key: object) -> np.random.Generator:
    """Return a generator that depends on nothing but `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


class Mixture:
    """Draw batches from stores with given shares."""

    def __init__(
        self,
        config: ModelConfig,
        stores: Mapping[str, Store],
        shares: Mapping[str, float],
        wanted: Wanted,
        codecs: Mapping[str, str],
        seed: int,
    ) -> None:
        present = {name: share for name, share in shares.items() if name in stores and share > 0}
        if not present:
            raise ConfigError(f"none of the data sources {', '.join(shares)} is available")
        self.config = config
        self.wanted = wanted
        self.seed = seed
        self.stores = [stores[name] for name in present]
        self.sources = [store.source for store in self.stores]
        total = sum(present.values())
        self.shares = [share / total for share in present.values()]
        self.containers = [
            {name: self._container(store, name) for name in (*wanted.media, *wanted.latents)}
            for store in self.stores
        ]
        self.latents = [
            {name: self._open_latents(store, held[name], codecs) for name in wanted.latents}
            for store, held in zip(self.stores, self.containers, strict=True)
        ]

    def batch(self, size: int, *key: object) -> Batch:
        """Return the batch of `size` samples that belongs to `key` (stage and step)."""
        rng = keyed_generator(self.seed, *key)
        choice = rng.choice(len(self.stores), size=size, p=self.shares)
        rows = [(int(c), int(rng.integers(len(self.stores[c])))) for c in choice]
        position = rng.random(size)
        out = Batch(
            records=[self.stores[c].records[i] for c, i in rows],
            origins=choice.tolist(),
            sources=self.sources,
            rng=rng,
        )
        for name in self.wanted.media:
            taken = [
                self._take(c, name, i, at, rng) for (c, i), at in zip(rows, position, strict=True)
            ]
            out.media[name] = self.config.media(name).to_tensor(taken)
        for name in self.wanted.latents:
            latents = [
                self._take_latent(c, name, i, at) for (c, i), at in zip(rows, position, strict=True)
            ]
            out.latents[name] = torch.from_numpy(np.stack(latents).astype(np.float32))
        if self.wanted.captions:
            out.captions = out.write_captions(self.wanted.captions, self.wanted.complete)
        return out

    @staticmethod
    def _container(store: Store, name: str) -> str:
        """Return the stored modality that holds `name`: itself, or the one it is a part of."""
        for candidate in (name, modality(name).part_of):
            if candidate in store.arrays:
                return str(candidate)
        raise ConfigError(f"{store.folder}: the source has no {name}; leave it out of this stage")

    @staticmethod
    def _open_latents(store: Store, name: str, codecs: Mapping[str, str]) -> np.ndarray:
        latents = store.latents(name, codecs[name])
        if latents is None:
            raise ConfigError(f"{store.folder}: no cached latents of {name}; cache them first")
        return latents

    def _take(
        self, choice: int, name: str, index: int, at: float, rng: np.random.Generator
    ) -> np.ndarray:
        container = self.containers[choice][name]
        array = self.stores[choice].arrays[container][index]  # (F, H, W, 3) or (S,)
        if container != name:
            frame = int(at * len(array))
            array = array[frame : frame + 1]
        return self.sources[choice].varied(name, array, rng)

    def _take_latent(self, choice: int, name: str, index: int, at: float) -> np.ndarray:
        latent = self.latents[choice][name][index]  # (C, F, H, W)
        if self.containers[choice][name] == name:
            return latent
        frame = int(at * latent.shape[1])
        return latent[:, frame : frame + 1]
