"""The shipped models and recipes: the paper's numbers, and that everything in them fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from codi.build import (
    PRESETS,
    Model,
    ModelConfig,
    load_config,
    parameter_counts,
    share_counts,
    within,
)
from codi.config import ConfigError
from codi.encoders.environment import EnvironmentEncoderConfig
from codi.training.loop import Run, RunSettings
from codi.training.recipe import Recipe, load_recipe
from codi.weights import save_model
from tests.small import PRESET, SHIPPED, awake_model, small_model

STABLE_DIFFUSION = 859_520_964
"""Parameters of Stable Diffusion 1's UNet."""

RECIPES = sorted(path.stem for path in PRESETS.glob("recipe-*.toml"))


@pytest.fixture(scope="module")
def paper() -> ModelConfig:
    return load_config("paper")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("recipe-paper")


def _shapes(config: ModelConfig, part: str) -> nn.Module:
    role, name = part.split(".")
    with torch.device("meta"):
        module: nn.Module = config.part(role, name).build()
    return module


def _count(module: nn.Module, wanted: Callable[[str], bool] = lambda _name: True) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if wanted(name))


def _is_spatial(name: str) -> bool:
    return ".temporal." not in name and "environment_attention" not in name


# --- the model of Table 12 ---


def test_the_whole_model_is_built_without_memory(paper: ModelConfig) -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    with torch.device("meta"):
        model = Model(paper)
    assert all(p.is_meta for p in model.parameters())
    assert _count(model) > 4 * 10**9


def test_parts_are_counted_one_by_one() -> None:
    model = small_model()
    counts = parameter_counts(model.config)
    assert list(counts) == model.config.parts()
    assert sum(counts.values()) == _count(model)
    shares = share_counts(model.config)["diffusers.vision"]
    vision = model.role("diffusers")["vision"]
    assert shares["temporal blocks"] == _count(vision, lambda name: ".temporal." in name)
    rest = shares[""] - sum(shares[name] for name in within("", shares))
    assert rest == _count(vision, _is_spatial)
    assert shares[""] == counts["diffusers.vision"]
    assert counts["diffusers.audio"] == _count(model.role("diffusers")["audio"])


def test_the_image_diffuser_is_stable_diffusions(paper: ModelConfig) -> None:
    assert _count(_shapes(paper, "diffusers.vision"), _is_spatial) == STABLE_DIFFUSION


def test_the_audio_diffuser_is_the_image_diffuser_on_other_latents(paper: ModelConfig) -> None:
    # Four channels more go in and out, through 3 x 3 convolutions of 320 channels.
    more = 2 * 4 * 320 * 9 + 4
    assert _count(_shapes(paper, "diffusers.audio"), _is_spatial) == STABLE_DIFFUSION + more


def test_the_vocoder_is_audioldms(paper: ModelConfig) -> None:
    codec = _shapes(paper, "codecs.audio")
    assert _count(codec, lambda name: name.startswith("vocoder.")) == 55_264_897


@pytest.mark.parametrize(
    ("part", "tower"), [("text", 123_060_480), ("image", 303_179_776), ("audio", 270_851_992)]
)
def test_the_prompt_encoders_are_the_published_sizes(
    paper: ModelConfig, part: str, tower: int
) -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    encoder = _shapes(paper, f"encoders.{part}")
    assert _count(encoder, lambda name: name.startswith("tower.")) == tower


def test_the_schedule_and_the_sampler_are_table_12s(paper: ModelConfig) -> None:
    schedule = paper.schedule.build()
    betas = 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]
    assert schedule.T == 1000
    assert betas[0].item() == pytest.approx(0.00085)
    assert betas[-1].item() == pytest.approx(0.0120)
    assert (paper.sampling.sampler, paper.sampling.steps, paper.sampling.eta) == ("ddim", 50, 1.0)


def test_guidance_and_parameterisation_are_table_12s(paper: ModelConfig) -> None:
    guidance = {name: m.guidance for name, m in paper.modalities.items()}
    assert guidance == {"text": 2.0, "image": 2.0, "video": 2.0, "audio": 7.5}
    assert {m.prediction for m in paper.modalities.values()} == {"epsilon"}


def test_an_environment_is_one_vector(paper: ModelConfig) -> None:
    for name in paper.environments:
        part = paper.part("environments", name)
        assert isinstance(part, EnvironmentEncoderConfig)
        assert part.slots == 1


# --- the model that was released ---


def test_the_release_differs_from_the_paper_where_it_does(paper: ModelConfig) -> None:
    released = load_config("release")
    assert (paper.wiring, released.wiring) == ("others", "own")
    assert (paper.sampling.eta, released.sampling.eta) == (1.0, 0.0)
    assert {m.guidance for m in released.modalities.values()} == {7.5}
    assert released.part("diffusers", "audio").channels == 192
    assert released.modality("video").latent == (4, 8, 32, 32)
    diffusers = [released.part("diffusers", name) for name in ("vision", "audio")]
    for unet in (*diffusers, released.part("diffusers", "text").inner):
        assert (unet.skips, unet.environment, unet.first_step) == ("aliased", "transformer", 0)


def test_the_release_shares_a_step_embedding_with_its_environments() -> None:
    released = load_config("release")
    assert released.step_sharers(list(released.modalities)) == released.parts(("diffusers",))


# --- sizes that follow from each other, in every shipped model ---


@pytest.mark.parametrize("preset", SHIPPED)
def test_latents_follow_from_media_and_codecs(preset: str) -> None:
    _check_latents(load_config(preset))


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_has_latents_that_follow_from_its_media(name: str) -> None:
    recipe = load_recipe(name)
    for stage in recipe.stage:
        _check_latents(recipe.model_config(stage))


def _check_latents(config: ModelConfig) -> None:
    codec = config.part("codecs", "image")
    for name in ("image", "video"):
        media = config.modality(name).media
        side = media["size_px"] // codec.factor
        frames = media.get("frames", 1)
        assert config.modality(name).latent == (codec.latent_channels, frames, side, side)
    if set(config.modalities) == {"text", "image", "video"}:  # text is a condition only
        assert config.generated == ["image", "video"]
        return
    sound, codec = config.modality("audio"), config.part("codecs", "audio")
    samples = round(sound.media["duration_s"] * sound.media["sample_rate_hz"])
    factor = codec.autoencoder.factor
    columns, bins = codec.mel.frames(samples) // factor, codec.mel.bins // factor
    assert sound.latent == (codec.autoencoder.latent_channels, 1, columns, bins)
    assert samples % (codec.mel.hop * factor) == 0
    assert config.modality("text").latent == (config.part("codecs", "text").latent_width,)


# --- the recipe of the paper ---


def test_the_stages_have_the_papers_rates(recipe: Recipe) -> None:
    rates = {stage.name: stage.learning_rate for stage in recipe.stage}
    batches = {stage.name: stage.batch for stage in recipe.stage}
    table_12 = {"image": (2e-5, 256), "audio": (5e-6, 1024), "text": (5e-5, 1024)}
    for name, expected in table_12.items():
        assert (rates[f"ldm-{name}"], batches[f"ldm-{name}"]) == expected
    assert {rate for name, rate in rates.items() if name.startswith("align-")} == {1e-4}
    assert {rate for name, rate in rates.items() if name.startswith("joint-")} == {1e-5}
    assert {stage.weight_decay for stage in recipe.stage} == {1e-4}


def test_the_curriculum_on_video_grows(recipe: Recipe) -> None:
    stages = {stage.name: stage for stage in recipe.stage}
    first = recipe.model_config(stages["ldm-video-text"]).modality("video")
    second = recipe.model_config(stages["ldm-video-image"]).modality("video")
    assert first.media == {"size_px": 256, "frames": 8, "fps": 4.0}
    assert second.media == {"size_px": 512, "frames": 16, "fps": 8.0}
    for stage in (first, second):
        assert math.isclose(stage.media["frames"] / stage.media["fps"], 2.0)


def test_bridging_uses_no_pair_without_text(recipe: Recipe) -> None:
    pairs = {
        frozenset((config.modality, config.bridge))
        for stage in recipe.stage
        for i, objective in enumerate(stage.objectives)
        if objective.task == "align"
        for config in [objective.config(stage.where(recipe.name, i))]
    }
    assert pairs == {frozenset(("audio", "text")), frozenset(("video", "text"))}


def test_data_are_optional_folders_below_the_root(recipe: Recipe) -> None:
    for source in recipe.sources().values():
        assert source.optional
        assert all(not Path(pattern).is_absolute() for pattern in source.files)


def test_a_stage_can_override_only_what_exists(recipe: Recipe) -> None:
    wrong = dataclasses.replace(recipe.stage[0], overrides=("modalities.video.medium.fps=4",))
    with pytest.raises(ConfigError, match=r"'modalities\.video\.medium'; did you mean"):
        dataclasses.replace(recipe, stage=(wrong,)).check()


@pytest.fixture
def small_recipe(recipe: Recipe) -> Recipe:
    """Return the paper's recipe on the tests' model and world: a few large steps a stage."""
    world = {"kind": "world", "world": "bounce", "clips": 4}
    stages = tuple(
        dataclasses.replace(
            stage,
            steps=2,
            batch=2,
            warmup=0,
            learning_rate=1e-3,
            overrides=(),  # a world is rendered in one size
            objectives=tuple(
                dataclasses.replace(objective, data={"bounce": 1.0})
                for objective in stage.objectives
            ),
        )
        for stage in recipe.stage
    )
    return dataclasses.replace(
        recipe, model=str(PRESET), data={"bounce": world}, overrides=(), stage=stages
    )


def test_every_stage_of_the_paper_trains(small_recipe: Recipe, tmp_path: Path) -> None:
    save_model(awake_model(), tmp_path / "model")  # what the paper is given: codecs, CLIP, SD
    run = Run(small_recipe, RunSettings(out=tmp_path, sample_every=0))
    run.run()
    assert all(run.done(stage) for stage in small_recipe.stage)
