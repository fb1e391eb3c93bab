"""Configuration to model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codi.build import ROLES, Model, ModelConfig, load_config, with_files_in
from codi.config import ConfigError, build, load_toml, to_toml
from tests.small import NAMES, PRESET, SHIPPED, marks, small_config, small_model


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in SHIPPED])
def test_every_preset_builds(name: str) -> None:
    config = load_config(name)
    with torch.device("meta"):  # shapes only: presets may be larger than this machine
        model = Model(config)
    assert config.name == name
    assert all(model.part(role, m) is not None for role in ROLES for m in config.modalities
               if config.modality(m).part(role))  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_all_environments_of_a_preset_have_the_same_slots(name: str) -> None:
    config = load_config(name)
    parts = [config.part("environments", part) for part in config.environments]
    assert len({(part.slots, part.environment_width) for part in parts}) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_all_prompts_of_a_preset_have_one_width(name: str) -> None:
    config = load_config(name)
    assert len({config.part("encoders", part).context_width for part in config.encoders}) == 1


def _changed(path: str, value: Any) -> ModelConfig:
    table = load_toml(PRESET)
    node = table
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    return build(ModelConfig, table, "mine.toml")


def test_an_unknown_kind_names_the_nearest() -> None:
    config = _changed("diffusers.audio.kind", "unett")
    with pytest.raises(
        ConfigError, match=r"\[diffusers.audio\] unknown kind 'unett'; did you mean 'unet'"
    ):
        config.part("diffusers", "audio")


def test_an_unknown_part_names_the_nearest() -> None:
    config = _changed("modalities.video.encoder", "vidoe")
    with pytest.raises(ConfigError, match=r"part in \[encoders\] 'vidoe'; did you mean 'video'"):
        Model(config)


def test_an_unknown_modality_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown modality of model 'small': 'aduio'.*'audio'"):
        small_config().modality("aduio")


def test_an_unknown_setting_of_a_part_names_the_nearest() -> None:
    config = _changed("codecs.image.patchs", 2)
    with pytest.raises(ConfigError, match=r"codecs.image: .*'patchs'; did you mean 'patch'"):
        config.part("codecs", "image")


def test_an_unknown_setting_of_a_medium_names_the_nearest() -> None:
    config = _changed("modalities.image.media", {"size": 64})
    with pytest.raises(ConfigError, match=r"modalities.image.media: .*'size'.*'size_px'"):
        config.media("image")


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown model 'tinny'; did you mean 'tiny'"):
        load_config("tinny")


def test_a_model_is_read_by_name_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(PRESET.read_bytes())
    assert load_config(tmp_path) == load_config(tmp_path / "config.toml") == load_config(PRESET)
    assert load_config("tiny").name == "tiny"


def test_values_are_set_from_outside() -> None:
    assert small_config("sampling.steps=7").sampling.steps == 7


def test_only_the_parts_asked_for_are_built() -> None:
    model = small_model(parts=["codecs.image", "encoders.text"])
    assert set(model.role("codecs")) == {"image"}
    assert set(model.role("encoders")) == {"text"}
    assert not model.role("diffusers")


def test_shared_parts_are_listed_once() -> None:
    parts = small_config().parts(("diffusers", "environments"), ["image", "video"])
    assert parts == ["diffusers.vision", "environments.vision"]
    assert len(small_config().parts()) == len(set(small_config().parts())) == 13


def test_a_part_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="audio has no codec in model 'small'"):
        small_model(parts=[]).codec("audio")


def test_a_modality_without_a_diffuser_is_not_generated() -> None:
    table = load_toml(PRESET)
    del table["modalities"]["audio"]["diffuser"]
    config = build(ModelConfig, table, "mine.toml")
    assert config.generated == ["text", "image", "video"]
    assert small_config().generated == list(NAMES)


def test_the_schedule_is_the_presets() -> None:
    model = small_model("schedule.steps=100", parts=[])
    assert model.schedule.T == 100
    assert model.schedule is model.schedule


# --- files that parts name ---


def _with_tokenizer(value: str) -> ModelConfig:
    return _changed("codecs.text.tokenizer", value)


def test_files_of_a_model_go_into_its_folder_and_are_found_there(tmp_path: Path) -> None:
    mine = tmp_path / "words.json"
    mine.write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    kept = with_files_in(_with_tokenizer(str(mine)), folder)
    assert kept.codecs["text"]["tokenizer"] == "text/codec-tokenizer.json"
    assert kept.encoders["text"]["tokenizer"] == "tokenizer-tiny.json"  # ships with the package
    (folder / "config.toml").write_text(to_toml(kept))
    moved = folder.rename(tmp_path / "moved")
    mine.write_text("other words")
    found = load_config(moved)
    path = Path(found.codecs["text"]["tokenizer"])
    assert path == moved / "text" / "codec-tokenizer.json"
    assert path.read_text() == "{}"
    assert with_files_in(found, moved) == kept  # saved where it is, nothing is copied


def test_a_folder_of_files_is_taken_along_whole(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.json").write_text("{}")
    kept = with_files_in(_with_tokenizer(str(tmp_path / "words")), tmp_path / "model")
    assert kept.codecs["text"]["tokenizer"] == "text/codec-tokenizer"
    assert (tmp_path / "model" / "text" / "codec-tokenizer" / "vocab.json").is_file()


@pytest.mark.parametrize("value", ["", "openai/some-model", "tokenizer-tiny.json"])
def test_what_is_no_file_stays_as_it_is(tmp_path: Path, value: str) -> None:
    config = _with_tokenizer(value)
    assert with_files_in(config, tmp_path) == config
    assert not any(tmp_path.iterdir())
