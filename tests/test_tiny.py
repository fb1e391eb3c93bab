"""The contract on one page: train every stage, save, load, generate everything, at a tiny size.

The recipe is the default model's own, on the tests' model, with a few steps a stage.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import codi
from codi.modalities import modality
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Recipe, Stage, load_recipe
from codi.weights import missing_parts
from tests.small import NAMES, PRESET, SENTENCE, objects


def _shortened(stage: Stage) -> Stage:
    objectives = tuple(dataclasses.replace(o, batch=None) for o in stage.objectives)
    return dataclasses.replace(stage, steps=3, batch=2, warmup=1, objectives=objectives)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    whole = load_recipe("recipe-tiny-cpu", [f"model={str(PRESET)!r}", "data.bounce.clips=8"])
    return dataclasses.replace(whole, stage=tuple(_shortened(stage) for stage in whole.stage))


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(recipe, RunSettings(tmp_path_factory.mktemp("run"), sample_every=0))
    run.run()
    return run


def test_every_stage_is_trained_and_every_part_is_saved(run: Run, recipe: Recipe) -> None:
    assert all(run.done(stage) for stage in recipe.stage)
    assert missing_parts(run.folder, run.config) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_output_is_generated_from_text_and_saved(run: Run, name: str, tmp_path: Path) -> None:
    pipeline = codi.load(run.folder, device="cpu")
    [item] = pipeline.generate([("text", SENTENCE)], [name], steps=2)[name]
    path = tmp_path / f"made.{modality(name).suffix}"
    pipeline.config.media(name).save(item, path)
    assert path.stat().st_size > 0


def test_everything_is_generated_together_from_everything(run: Run) -> None:
    made = codi.load(run.folder, device="cpu").generate(
        list(objects().items()), NAMES, seeds=[0, 1], steps=2
    )
    assert {name: len(items) for name, items in made.items()} == dict.fromkeys(NAMES, 2)


def test_a_soundtrack_is_made_for_a_video(run: Run) -> None:
    video = objects()["video"]
    made = codi.load(run.folder, device="cpu").generate(
        to=["audio"], keep={"video": video}, steps=2
    )
    assert np.array_equal(made["video"][0].frames, video.frames)
    assert made["audio"][0].samples.shape == (32_000,)
