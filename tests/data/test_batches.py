"""Batches: pure functions of (seed, key), in the shares asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codi.config import ConfigError
from codi.data.batches import Batch, Mixture, Wanted, keyed_generator
from codi.data.source import Caption, Record, Source
from codi.data.store import Store, open_store
from tests.small import small_config

CONFIG = small_config()
CODECS = {"video": "mark", "audio": "mark"}


class Counting(Source):
    """Items that can be told apart: item i is the number i, and frame f of its clip 16 i + f."""

    def __init__(self, name: str, count: int = 10) -> None:
        self.name = name
        self.count = count

    def __len__(self) -> int:
        return self.count

    @property
    def fingerprint(self) -> str:
        return self.name

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Record]:
        frames = 16 * index + np.arange(16, dtype=np.uint8)[:, None, None, None]
        video = np.broadcast_to(frames, (16, 64, 64, 3)).astype(np.uint8)
        return {"video": video, "audio": np.full(32_000, index, np.int16)}, {"number": index}

    def caption(
        self, record: Record, shown_by: str, rng: np.random.Generator, complete: bool = False
    ) -> Caption:
        words = ["number", "item", "thing"][int(rng.integers(3))]
        return Caption(f"{shown_by} of {words} {record['number']}", record["number"])

    def matches(self, claims: Sequence[Any], records: Sequence[Record]) -> np.ndarray:
        return np.array([[claim == record["number"] for record in records] for claim in claims])


def _latents(frames: np.ndarray) -> np.ndarray:
    """Stand for a codec: every latent of a frame is the number of that frame."""
    numbers = frames[:, :, 0, 0, 0].astype(np.float32)  # (B, F)
    return np.broadcast_to(numbers[:, None, :, None, None], (len(frames), 4, 16, 4, 4))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    cache = tmp_path_factory.mktemp("cache")
    stores = {name: open_store(Counting(name), cache) for name in ("one", "two")}
    for store in stores.values():
        store.cache_latents("video", "mark", _latents)
    return stores


def _mixture(stores: dict[str, Store], wanted: Wanted, seed: int = 0, **shares: float) -> Mixture:
    return Mixture(CONFIG, stores, shares or {"one": 1.0}, wanted, CODECS, seed)


WANTED = Wanted(("video", "image", "audio"), ("video", "image"), ("video", "audio"))


def _same(first: Batch, second: Batch) -> bool:
    return (
        first.records == second.records
        and first.texts == second.texts
        and all(torch.equal(first.media[name], second.media[name]) for name in first.media)
        and all(torch.equal(first.latents[name], second.latents[name]) for name in first.latents)
    )


def test_a_batch_is_a_function_of_seed_and_key(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, WANTED).batch(6, "stage", 3)
    assert len(batch) == 6
    mixture = _mixture(stores, WANTED)
    mixture.batch(6, "stage", 2)  # what was drawn before leaves no trace
    assert _same(mixture.batch(6, "stage", 3), batch)
    assert not _same(mixture.batch(6, "stage", 4), batch)
    assert not _same(mixture.batch(6, "other stage", 3), batch)
    assert not _same(_mixture(stores, WANTED, seed=1).batch(6, "stage", 3), batch)


def test_further_captions_are_a_function_of_the_key_too(stores: dict[str, Store]) -> None:
    first, second = (_mixture(stores, WANTED).batch(6, 1) for _ in range(2))
    more = [first.write_captions(("audio",)) for _ in range(2)]
    assert [second.write_captions(("audio",)) for _ in range(2)] == more


def test_media_latents_and_captions_are_of_one_item(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, WANTED).batch(8, 1)
    for i, record in enumerate(batch.records):
        number = record["number"]
        first_pixel = ((batch.media["video"][i, 0, 0, 0, 0] + 1) * 127.5).round()
        assert first_pixel == 16 * number
        assert batch.latents["video"][i, 0, 0, 0, 0] == 16 * number
        assert batch.texts[i].endswith(f" {number}")


def test_an_image_and_its_latent_are_the_same_frame_of_the_clip(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, WANTED).batch(12, 1)
    assert batch.media["image"].shape == (12, 3, 1, 64, 64)
    assert batch.latents["image"].shape == (12, 4, 1, 4, 4)
    shown = ((batch.media["image"][:, 0, 0, 0, 0] + 1) * 127.5).round()
    assert torch.equal(shown, batch.latents["image"][:, 0, 0, 0, 0])
    frames = shown.long() - torch.tensor([16 * r["number"] for r in batch.records])
    assert ((frames >= 0) & (frames < 16)).all()
    assert len(frames.unique()) > 3  # of any frame


def test_captions_are_of_the_modalities_asked_for(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, WANTED).batch(40, 1)
    shown_by = [text.split()[0] for text in batch.texts]
    assert set(shown_by) == {"video", "audio"}


def test_only_what_is_wanted_is_read(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, Wanted(latents=("video",))).batch(2, 1)
    assert batch.media == {}
    assert set(batch.latents) == {"video"}
    assert batch.captions == []


@pytest.mark.parametrize(("one", "two"), [(0.8, 0.2), (3.0, 1.0), (1.0, 0.0)])
def test_a_mixture_keeps_its_shares(stores: dict[str, Store], one: float, two: float) -> None:
    mixture = _mixture(stores, Wanted(captions=("audio",)), one=one, two=two)
    batch = mixture.batch(2000, 1)
    from_one = np.mean(
        [source is stores["one"].source for source in (batch.sources[o] for o in batch.origins)]
    )
    assert from_one == pytest.approx(one / (one + two), abs=0.04)


def test_the_shares_of_what_is_missing_go_to_the_rest(stores: dict[str, Store]) -> None:
    mixture = _mixture(stores, Wanted(), two=0.5, three=0.5)
    assert mixture.shares == [1.0]


def test_a_mixture_of_nothing_is_an_error(stores: dict[str, Store]) -> None:
    with pytest.raises(ConfigError, match="none of the data sources three, four is available"):
        _mixture(stores, Wanted(), three=0.5, four=0.5)


def test_a_caption_is_true_of_what_it_says(stores: dict[str, Store]) -> None:
    batch = _mixture(stores, Wanted(captions=("audio",)), one=0.5, two=0.5).batch(30, 1)
    matches = batch.matches(batch.captions)
    assert matches.diagonal().all()
    numbers = [record["number"] for record in batch.records]
    for i, j in np.ndindex(30, 30):
        same = batch.origins[i] == batch.origins[j] and numbers[i] == numbers[j]
        assert matches[i, j] == same  # what one source says of another's items is unknown: no


def test_a_source_without_a_modality_is_an_error(stores: dict[str, Store], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the source has no text; leave it out of this stage"):
        _mixture(stores, Wanted(media=("text",)))


def test_latents_have_to_be_cached_first(stores: dict[str, Store]) -> None:
    with pytest.raises(ConfigError, match=r"no cached latents of audio; cache them first"):
        _mixture(stores, Wanted(latents=("audio",)))


def test_a_generator_depends_on_nothing_but_its_key() -> None:
    assert keyed_generator(1, "a", 2).random() == keyed_generator(1, "a", 2).random()
    assert keyed_generator(1, "a", 2).random() != keyed_generator(1, "a", 3).random()
