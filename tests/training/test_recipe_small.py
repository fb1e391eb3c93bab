"""One step of every stage of recipe-small, on shards of the real data's layouts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from codi.evaluation.parts import PARTS
from codi.folders import PRESETS
from codi.tokenizer import load_tokenizer
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Recipe, Stage, load_recipe
from tests.real_shards import write_real_shard
from tests.small import PRESET

_NAMES = ("tiny", "small")
REAL = Path(__file__).parents[2].parent / "shared/data/real"


def _short(stage: Stage) -> Stage:
    """Return a stage of a few steps, in which every objective has its turn."""
    objectives = tuple(dataclasses.replace(o, batch=None, share=1.0) for o in stage.objectives)
    steps = 1 if len(objectives) == 1 else 3 * len(objectives)
    return dataclasses.replace(stage, steps=steps, batch=4, warmup=1, objectives=objectives)


def test_latents_of_pictures_and_sounds_stay_those_of_tiny() -> None:
    for stage in load_recipe("recipe-small").stage:
        for objective in stage.objectives:
            kept = objective.settings.get("modality") in ("image", "audio")
            if objective.task == "reconstruct" and kept:
                assert objective.settings["calibrate"] is False
                assert all(".decoder." in glob for glob in stage.train)


def test_its_tokenizer_goes_on_from_that_of_tiny() -> None:
    ids = [load_tokenizer(f"tokenizer-{name}.json").library.get_vocab() for name in _NAMES]
    assert ids[0].items() <= ids[1].items()
    parts = load_recipe("recipe-small").model_config()
    assert {parts.codecs["text"]["vocabulary"], parts.encoders["text"]["vocabulary"]} == {
        len(ids[1])
    }


def _without_bounce(recipe: Recipe) -> Recipe:
    """Return the recipe with a handful of clips, and real data wherever a stage has any."""
    bounce: dict[str, Any] = {"kind": "world", "world": "bounce", "clips": 4}
    stages = []
    for stage in recipe.stage:
        objectives = []
        for objective in stage.objectives:
            real = {name: 1.0 for name in objective.data if name != "bounce"}
            objectives.append(dataclasses.replace(objective, data=real or objective.data))
        stages.append(dataclasses.replace(stage, objectives=tuple(objectives)))
    data = {**recipe.data, "bounce": bounce}
    return dataclasses.replace(
        recipe,
        model=str(PRESET),
        starts_from=None,
        data=data,
        stage=tuple(_short(stage) for stage in stages),
    )


def test_the_recipe_goes_on_from_tiny_and_names_every_part() -> None:
    recipe = load_recipe("recipe-small")
    assert recipe.starts_from == recipe.model == "tiny"
    assert set(recipe.data) == {"bounce", "named", *PARTS}
    for stage in recipe.stage:  # nothing that belongs together by class alone is synchronised
        for objective in stage.objectives:
            if {"video", "audio"} <= set(objective.settings.get("streams", ())):
                assert objective.data == {"bounce": 1.0}


@pytest.mark.timeout(600)
def test_every_stage_takes_a_step_on_real_shards(tmp_path: Path) -> None:
    for part in PARTS:
        write_real_shard(tmp_path, part, "train", 12)
    settings = RunSettings(tmp_path / "run", data=str(tmp_path), sample_every=0)
    Run(_without_bounce(load_recipe("recipe-small")), settings).run()
    done = {path.parent.name for path in (tmp_path / "run/stages").glob("*/done.json")}
    assert done == {stage.name for stage in load_recipe("recipe-small").stage}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not REAL.is_dir(), reason="the real shards are not beside the repository")
def test_every_stage_takes_a_step_on_the_real_shards_themselves(tmp_path: Path) -> None:
    settings = RunSettings(tmp_path / "run", data=str(REAL), sample_every=0)
    Run(_without_bounce(load_recipe("recipe-small")), settings).run()


def test_the_preset_is_shipped() -> None:
    assert (PRESETS / "recipe-small.toml").is_file()
