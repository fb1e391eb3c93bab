"""Data and recipes small enough to train on in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codi.data.batches import Batch, Mixture
from codi.data.source import WorldConfig, WorldSource
from codi.data.store import Store, open_store
from codi.training.recipe import Objective, Recipe, Stage
from codi.training.task import Task
from tests.small import PRESET, awake_model, small_config

Batches = Callable[[Task], Batch]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of prepared data that tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def store(cache: Path) -> Store:
    """Return eight clips, with the latents of an untrained codec."""
    config, store = small_config(), open_store(WorldSource(WorldConfig("bounce", 8)), cache)
    model = awake_model(parts=config.parts(("codecs",)))
    for name in ("video", "audio"):
        media, codec = config.media(name), model.codec(name)

        @torch.no_grad()
        def encode(arrays: np.ndarray, media: Any = media, codec: Any = codec) -> np.ndarray:
            return codec.encode(media.to_tensor(arrays)).numpy()

        store.cache_latents(name, "untrained", encode)
    return store


@pytest.fixture
def batch_for(store: Store) -> Batches:
    """Return a function: task -> a batch of four samples of what it wants."""
    codecs = dict.fromkeys(("video", "audio"), "untrained")

    def batch_for(task: Task) -> Batch:
        mixture = Mixture(small_config(), {"a": store}, {"a": 1.0}, task.wanted, codecs, 0)
        return mixture.batch(4, "test")

    return batch_for


def reconstruct(modality: str = "image", **changes: Any) -> Objective:
    """Return the cheapest objective."""
    settings: dict[str, Any] = {"modality": modality}
    if modality == "text":
        settings["captions"] = ["video", "audio"]
    return Objective("reconstruct", {"bounce": 1.0}, settings, **changes)


def stage(name: str = "codec", *objectives: Objective, **changes: Any) -> Stage:
    """Return a stage of a few steps."""
    settings: dict[str, Any] = {"steps": 6, "batch": 2, "learning_rate": 1e-3, "warmup": 2}
    return Stage(name, objectives or (reconstruct(),), **(settings | changes))


def recipe(*stages: Stage, **changes: Any) -> Recipe:
    """Return a recipe for the small model on a handful of clips."""
    data = {"bounce": {"kind": "world", "world": "bounce", "clips": 8}}
    settings: dict[str, Any] = {"name": "test", "model": str(PRESET), "data": data}
    return Recipe(stage=stages or (stage(),), **(settings | changes))
