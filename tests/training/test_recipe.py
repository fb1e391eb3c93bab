"""Recipes: what is wrong with one is said before any step is taken."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from codi.build import Model
from codi.cli.plan import Planner
from codi.config import ConfigError, to_toml
from codi.folders import PRESETS
from codi.training.parameters import parts_of, tasks_of, trained_by
from codi.training.recipe import Objective, Recipe, Stage, load_recipe
from tests.small import PRESET, marks
from tests.training.conftest import recipe, reconstruct, stage

SHIPPED = sorted(path.stem for path in PRESETS.glob("recipe-*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_is_read(name: str) -> None:
    assert load_recipe(name).name == name


def _stages() -> list[Any]:
    found = [(name, stage) for name in SHIPPED for stage in load_recipe(name).stage]
    return [
        pytest.param(*pair, id=f"{pair[0]}/{pair[1].name}", marks=marks(load_recipe(pair[0]).model))
        for pair in found
    ]


@functools.cache
def _shape_of(name: str, part: str) -> torch.nn.Module:
    """Build a part of a recipe's model without numbers: it may be larger than this machine."""
    with torch.device("meta"):
        module: torch.nn.Module = load_recipe(name).model_config().part(*part.split(".", 1)).build()
    return module


@pytest.mark.parametrize(("name", "stage"), _stages())
def test_every_stage_of_every_recipe_finds_what_it_trains(name: str, stage: Stage) -> None:
    config = load_recipe(name).model_config()
    model = Model(config, [])
    for part in parts_of(stage, config, name):
        role, part_name = part.split(".", 1)
        model.role(role)[part_name] = _shape_of(name, part)
    _, chosen = trained_by(stage, model, tasks_of(stage, model, name))
    assert chosen


def test_objectives_of_a_stage_share_a_parameter_of_one_name() -> None:
    aligns = [
        Objective("align", {"bounce": 1.0}, {"modality": name}, share=0.5)
        for name in ("audio", "image")
    ]
    both, config = stage("both", *aligns), recipe().model_config()
    model = Model(config, parts_of(both, config, "test"))
    tasks = tasks_of(both, model, "test")
    _, chosen = trained_by(both, model, tasks)
    scales = [dict(task.named_parameters(recurse=False))["log_scale"] for task in tasks]
    assert all(scale is chosen["log_scale"] for scale in scales)
    plan = Planner(recipe(both)).plan(both)  # which sets the stage up by the same functions
    assert plan.parameters == sum(p.numel() for p in chosen.values())
    assert set(plan.trained) == {"log_scale", "encoders.audio", "encoders.image"}


def test_a_recipe_that_is_written_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for name in SHIPPED:
        file.write_text(to_toml(load_recipe(name)))
        assert load_recipe(file) == load_recipe(name)


def test_values_are_set_from_outside() -> None:
    assert load_recipe(SHIPPED[0], ["stage.0.steps=7", "seed=3"]).stage[0].steps == 7


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown recipe 'recipe-tiny-cpuu'; .*'recipe-tiny-cpu'"
    ):
        load_recipe("recipe-tiny-cpuu")


def _wrong(objective: Objective | None = None, **changes: Any) -> Recipe:
    return recipe(stage("first", objective or reconstruct(), **changes))


WRONG: list[tuple[str, Recipe]] = [
    (
        r"test: stage 'first', objective 1: unknown task 'denoize'; .*'denoise'",
        _wrong(Objective("denoize", {"bounce": 1.0})),
    ),
    (
        r"stage 'first', objective 1: unknown data source 'bonce'; did you mean 'bounce'",
        _wrong(Objective("reconstruct", {"bonce": 1.0}, {"modality": "image"})),
    ),
    (
        r"objective 1: settings: unknown key 'modalty'; did you mean 'modality'",
        _wrong(Objective("reconstruct", {"bounce": 1.0}, {"modalty": "image"})),
    ),
    (
        r"objective 1: unknown modality of model 'small': 'imgae'; did you mean 'image'",
        _wrong(Objective("reconstruct", {"bounce": 1.0}, {"modality": "imgae"})),
    ),
    (
        r"objective 1: unknown modality of model 'small': 'vidoe'; did you mean 'video'",
        _wrong(Objective("denoise", {"bounce": 1.0}, {"modality": "audio", "captions": ["vidoe"]})),
    ),
    (
        r"stage 'first', objective 1: columns = 2: .*; give 4 or more",
        _wrong(Objective("vocode", {"bounce": 1.0}, {"columns": 2})),
    ),
    (
        r"starts_from: unknown part 'encoders.vidoe'; did you mean 'encoders.video'",
        _wrong(starts_from={"encoders.vidoe": "encoders.image"}),
    ),
    (r"two stages have one name; rename one", recipe(stage("one"), stage("one"))),
    (
        r"recipe test: \[data.bounce\] unknown kind 'wold'; did you mean 'world'",
        recipe(data={"bounce": {"kind": "wold"}}),
    ),
    (r"unknown model 'tinny'; did you mean 'tiny'", recipe(model="tinny")),
]


@pytest.mark.parametrize(("message", "wrong"), WRONG, ids=[message[:40] for message, _ in WRONG])
def test_a_mistake_is_named_before_anything_is_done(message: str, wrong: Recipe) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        wrong.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "steps = 6",
            "step = 6",
            r"unknown key 'stage\[0\].step'; did you mean 'stage\[0\].steps'",
        ),
        ('decay = "cosine"', 'decay = "cosin"', "unknown value 'cosin'; did you mean 'cosine'"),
        ("batch = 2", 'batch = "two"', "expected an integer, got 'two'"),
        ("batch = 2", "batch = 0", r"stage\[0\]: batch is 0; give 1 or more"),
        ("share = 1.0", "share = 0.0", "stage 'codec' has no objective with a share above 0"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    text = to_toml(recipe())
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(str(file))


def test_a_recipe_may_change_another(tmp_path: Path) -> None:
    base, file = tmp_path / "base.toml", tmp_path / "mine.toml"
    base.write_text(to_toml(recipe(stage("one"), stage("two"))))
    file.write_text('name = "mine"\nextends = "base"\n[change.two]\nsteps = 9\n')
    mine = load_recipe(file, ["stage.0.batch=5"])
    assert mine.name == "mine"
    assert [s.steps for s in mine.stage] == [6, 9]
    assert [s.batch for s in mine.stage] == [5, 2]
    file.write_text('name = "mine"\nextends = "base"\n[change.tow]\nsteps = 9\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: \[change\] unknown stage 'tow'; .*'two'"):
        load_recipe(file)


def test_a_stage_may_be_like_an_earlier_one(tmp_path: Path) -> None:
    base, file = tmp_path / "base.toml", tmp_path / "mine.toml"
    again = '\n[[stage]]\nname = "again"\nlike = "one"\nsteps = 9\n'
    base.write_text(to_toml(recipe(stage("one"))) + again)
    one, two = load_recipe(base).stage
    assert (two.name, two.steps, one.steps) == ("again", 9, 6)
    assert two.objectives == one.objectives
    file.write_text('name = "mine"\nextends = "base"\n[change.one]\nbatch = 7\n')
    assert [s.batch for s in load_recipe(file).stage] == [7, 7]  # a change reaches what is like it
    base.write_text(to_toml(recipe(stage("one"))) + again.replace('"one"', '"onne"'))
    with pytest.raises(
        ConfigError, match=r"stage 'again': like: unknown earlier stage 'onne'; .*'one'"
    ):
        load_recipe(base)
    for odd in ("3", '["one"]'):
        base.write_text(to_toml(recipe(stage("one"))) + again.replace('"one"', odd))
        with pytest.raises(ConfigError, match="stage 'again': like: unknown earlier stage"):
            load_recipe(base)
    base.write_text(to_toml(recipe(stage("one"))) + again.replace('name = "again"\n', ""))
    with pytest.raises(ConfigError, match=r"stage\[1\].*name"):
        load_recipe(base)
    base.write_text('name = "base"\nmodel = "tiny"\nstage = 3\n')
    with pytest.raises(ConfigError, match="stage"):
        load_recipe(base)


def test_a_recipe_extends_one_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nextends = "recipe-tyni"\n')
    with pytest.raises(ConfigError, match=r"mine.toml: extends: unknown recipe .*'recipe-tiny'"):
        load_recipe(file)


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_recipe_that_extends_itself_is_an_error(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, base in zip(names, (*names[1:], names[0]), strict=True):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\nextends = "{base}"\n')
    circle = " -> ".join((*names, names[0]))
    with pytest.raises(ConfigError, match=rf"leads back to itself \({circle}\); name another"):
        load_recipe(tmp_path / "a.toml")


def test_a_stage_may_have_other_sizes() -> None:
    smaller = stage("first", overrides=("modalities.image.media.size_px=32",))
    both = recipe(smaller, stage("second"))
    sizes = [both.model_config(s).modality("image").media["size_px"] for s in both.stage]
    assert sizes == [32, 64]
    wrong = recipe(stage("first", overrides=("modalities.image.media=3",)))
    with pytest.raises(ConfigError, match=r"modalities\.image\.media"):
        wrong.check()


def test_all_batches_of_a_stage_can_be_made_smaller() -> None:
    of_its_own = Objective("align", {"bounce": 1.0}, {"modality": "audio"}, batch=96)
    stage_ = stage("s", reconstruct(), of_its_own, batch=16, batch_scale=0.25)
    assert [stage_.size(o) for o in stage_.objectives] == [4, 24]
    assert dataclasses.replace(stage_, batch_scale=0.001).size(of_its_own) == 1
    with pytest.raises(ValueError, match="batch_scale is 0; give a number above 0"):
        dataclasses.replace(stage_, batch_scale=0.0)


def test_overrides_reach_the_model() -> None:
    changed = dataclasses.replace(recipe(), overrides=("codecs.image.channels=24",))
    assert changed.model == str(PRESET)
    assert changed.model_config().part("codecs", "image").channels == 24
