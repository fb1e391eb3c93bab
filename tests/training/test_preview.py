"""Samples of a model in training: shown once all is there, and never a reason to stop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi.build import Model, ModelConfig
from codi.config import ConfigError
from codi.data.batches import Batch
from codi.data.source import Caption
from codi.modalities import base, modality
from codi.pipeline import Pipeline
from codi.training.loop import Run, RunSettings
from codi.training.preview import preview
from codi.training.recipe import Objective, Recipe
from codi.weights import save_model
from tests.small import awake_model, small_config, small_model
from tests.training.conftest import Batches, recipe, reconstruct, stage

BATCH = Batch(captions=[Caption("a red ball", None)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model without diffusers and environments."""
    folder = tmp_path_factory.mktemp("model")
    save_model(small_model(parts=small_config().parts(("codecs", "encoders"))), folder)
    return folder


def test_samples_are_shown_once_every_part_is_there(folder: Path, tmp_path: Path) -> None:
    one = small_model(parts=["diffusers.audio"])
    assert preview(one, folder, ["audio"], BATCH, steps=1).keys() == {"audio"}
    assert not preview(one, folder, ["image"], BATCH, steps=1)
    assert not preview(one, tmp_path, ["audio"], BATCH, steps=1)
    assert not preview(one, folder, ["audio"], Batch(), steps=1)
    streams, diffusers = ["audio", "image"], ["diffusers.audio", "diffusers.vision"]
    deaf = small_model(parts=diffusers)
    assert not preview(deaf, folder, streams, BATCH, steps=1)
    both = small_model(parts=[*diffusers, "environments.audio", "environments.vision"])
    assert list(preview(both, folder, streams, BATCH, steps=1)) == streams


def _renamed(config: ModelConfig, **changes: Any) -> ModelConfig:
    """Return the configuration with `text` called words, and with other settings of it."""
    words = dataclasses.replace(config.modality("text"), **changes)
    others = {name: m for name, m in config.modalities.items() if name != "text"}
    return dataclasses.replace(config, modalities=others | {"words": words})


def test_what_reads_captions_prompts_whatever_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = dataclasses.replace(modality("text"), name="words")
    monkeypatch.setitem(base._REGISTRY, "words", entry)
    model = Model(_renamed(small_config()), ["diffusers.audio"])
    assert preview(model, folder, ["audio"], BATCH, steps=1).keys() == {"audio"}
    model = Model(_renamed(small_config(), encoder=None), ["diffusers.audio"])
    assert not preview(model, folder, ["audio"], BATCH, steps=1)


def _sampled(steps: int) -> Recipe:
    """Return a codec's stage, and that of a diffuser beside it."""
    denoise = Objective("denoise", {"bounce": 1.0}, {"modality": "audio", "captions": ["audio"]})
    codec = stage("codec", reconstruct("audio"), steps=1, train=("codecs.audio.autoencoder.*",))
    return recipe(codec, stage("ldm", denoise, steps=steps))


def test_samples_are_drawn_on_the_way(tmp_path: Path, cache: Path) -> None:
    Run(_sampled(2), RunSettings(tmp_path, cache, sample_every=1)).run()
    shown = sorted((tmp_path / "stages" / "ldm" / "samples").iterdir())
    assert [path.name for path in shown] == ["000001-audio.png", "000002-audio.png"]
    assert (tmp_path / "stages" / "codec" / "samples" / "000001-audio.png").is_file()


@pytest.mark.parametrize("name", ["image", "text", "audio"])
def test_codecs_show_what_they_make_of_things(name: str, batch_for: Batches) -> None:
    model = awake_model(parts=small_config().parts(("codecs",)))
    task = reconstruct(name).build(model, "here")
    batch = batch_for(task)
    picture = task.pictures(batch)[name]
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    one = small_config().media(name).picture
    if name == "image":
        first = small_config().media(name).from_tensor(batch.media[name])[0]
        height, width, _ = one(first).shape
        assert np.array_equal(picture[:height, :width], one(first))
        assert picture.shape[:2] == (4 * (height + 2), 2 * (width + 2))


def test_samples_that_cannot_be_made_are_told_once_and_training_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise ConfigError("numbers that are not finite")

    monkeypatch.setattr(Pipeline, "generate", refuse)
    settings = RunSettings(tmp_path, cache, sample_every=1)
    Run(_sampled(3), settings, say=said.append).run()
    told = [line for line in said if "no samples" in line]
    assert told == ["ldm: no samples can be made: numbers that are not finite"]
    assert (tmp_path / "stages" / "ldm" / "done.json").is_file()
