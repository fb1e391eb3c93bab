"""A folder of CLAP, whatever its size -> a model that hears as it does, and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from codi import media
from codi.build import load_config
from codi.cli import main
from codi.config import ConfigError, to_toml
from codi.convert.converting import convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.pipeline import Condition, load
from codi.training.parameters import starting_model
from codi.training.recipe import load_recipe
from tests.convert.toy import folder_of_holes

transformers = pytest.importorskip("transformers", reason="needs codi[external]")

AUDIO: dict[str, Any] = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": [1, 2],
    "num_attention_heads": [1, 2],
    "num_hidden_layers": 2,
    "window_size": 4,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 16, "vocab_size": 20}
WIDTH = 12


@pytest.fixture(scope="module")
def clap() -> Any:
    """Return a small CLAP of the library, with values that its first ones do not hide."""
    config = transformers.ClapConfig(text_config=TEXT, audio_config=AUDIO, projection_dim=WIDTH)
    torch.manual_seed(1)
    model = transformers.ClapModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(scope="module")
def folder(clap: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    clap.save_pretrained(folder)
    return folder


def _sounds() -> torch.Tensor:
    return 0.3 * torch.randn(2, 48_000)


@torch.no_grad()
def test_a_folder_converts_without_a_word_on_its_size_and_hears_the_same(
    clap: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    assert main(["convert", str(folder), "--to", str(to)]) == 0
    assert "absent" not in capsys.readouterr().out
    pipeline = load(to, device="cpu")
    assert pipeline.config.modality("audio").media == {"sample_rate_hz": 48_000, "duration_s": 10.0}
    sounds = _sounds()
    context = pipeline.encode_prompts("audio", list(sounds.numpy()))
    encoder: Any = pipeline.model.encoder("audio")
    mel = encoder.spectrogram(sounds)
    expected = normalize(clap.audio_projection(clap.audio_model(input_features=mel).pooler_output))
    torch.testing.assert_close(encoder.embed(sounds), expected, atol=1e-5, rtol=0)
    assert context.shape == (2, 1, WIDTH)
    sound = media.Audio(np.asarray(sounds[0]), 48_000)
    assert pipeline.context([Condition("audio", sound)]).shape == (1, 1, WIDTH)
    again = prepare([str(folder)], to)  # goes on in the same model
    assert again.plan.model.encoders == pipeline.config.encoders


@torch.no_grad()
def test_what_is_exported_is_loaded_by_the_library_and_converts_back(
    clap: Any, folder: Path, tmp_path: Path
) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    write_export(prepare_export(tmp_path / "model", "clap"), tmp_path / "theirs")
    towers = transformers.ClapAudioModelWithProjection.from_pretrained(tmp_path / "theirs").eval()
    mel = torch.randn(1, 1, 1001, 64)
    expected = clap.audio_projection(clap.audio_model(input_features=mel).pooler_output)
    torch.testing.assert_close(towers(input_features=mel).audio_embeds, expected)
    back = prepare([str(tmp_path / "theirs" / "model.safetensors")], tmp_path / "back")
    assert back.plan.model == load_config(tmp_path / "model")


def _as_published(tmp_path: Path, audio: dict[str, Any]) -> Path:
    """Write a folder of the default sizes, those of clap-htsat-unfused, with a file of holes."""
    config = transformers.ClapConfig(audio_config=audio)
    return folder_of_holes(tmp_path, transformers.ClapModel, config)


def test_the_clap_that_most_have_fits_name_by_name(tmp_path: Path) -> None:
    conversion = prepare([str(_as_published(tmp_path, {}))], tmp_path / "model")
    [source] = conversion.plan.sources
    assert not any(name.startswith("audio_") for name in source.unused)
    config = conversion.plan.parts["encoders.audio"].config
    assert (config.context_width, config.channels, config.width) == (512, 96, 768)
    assert config.depths == (2, 2, 6, 2)
    assert config.heads == (4, 8, 16, 32)
    drawn = conversion.plan.parts["encoders.audio"].drawn
    assert drawn["tower.audio_encoder.patch_embed.proj.weight"].stored.shape == (96, 1, 4, 4)
    assert drawn["to_hidden.weight"].stored.shape == (512, 768)


@pytest.mark.parametrize("preset", ["release", "paper"])
def test_a_model_of_another_size_says_how_it_is_done(
    preset: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    assert main(["convert", str(folder), "--to", str(to), "--model", preset]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "weights of another size: choose the model of that size with --model, or conv" in said
    assert "without --model, into a new folder" in said
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"the sizes of the config\.json beside them"):
        prepare([str(tmp_path)], to)


def test_what_config_json_cannot_be_is_said(tmp_path: Path) -> None:
    fused = _as_published(tmp_path, {"enable_fusion": True})
    with pytest.raises(ConfigError, match=r"config.json: is of a CLAP with fusion .*-unfused"):
        prepare([str(fused)], tmp_path / "model")
    (tmp_path / "config.json").write_text('{"audio_config": 5}')
    with pytest.raises(
        ConfigError, match=r"config\.json: is damaged .*audio_config.*; fetch it again"
    ):
        prepare([str(tmp_path)], tmp_path / "model")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"num_attention_heads": [2, 4]},
            r"computes with num_attention_heads = \[2, 4\], .* with heads = \[1, 2\]",
        ),
        ({"enable_fusion": True}, r"is of a CLAP with fusion .*-unfused"),
        ({"layer_norm_eps": 1e-6}, r"has layer_norm_eps = 1e-06, and the encoder here"),
    ],
)
def test_what_shapes_do_not_show_is_not_passed_over(
    value: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    about = json.loads((folder / "config.json").read_text())
    about["audio_config"] |= value
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=rf"/config\.json: .*{message}"):
        prepare([str(tmp_path)], tmp_path / "again", model=str(tmp_path / "model"))


def test_alignment_in_a_wider_space_starts_from_it(folder: Path, tmp_path: Path) -> None:
    """The tower is CLAP's, and the projection into the space of the recipe's prompts is new."""
    convert(prepare([str(folder)], tmp_path / "model"))
    clap = load_config(tmp_path / "model")
    encoder = clap.encoders["audio"] | {"context_width": 20}
    wider = dataclasses.replace(clap, encoders={"audio": encoder})
    (tmp_path / "wider.toml").write_text(to_toml(wider))
    (tmp_path / "recipe.toml").write_text(
        f'name = "mine"\nmodel = "{tmp_path / "wider.toml"}"\nstarts_from = "{tmp_path / "model"}"'
        '\nfresh = ["encoders.audio.to_*", "encoders.audio.mean"]\nstage = []\n'
    )
    recipe = load_recipe(tmp_path / "recipe.toml")
    begun: Any = starting_model(recipe.starts_from or "", recipe).role("encoders")["audio"]
    whole: Any = load(tmp_path / "model", device="cpu")
    whole.require([], ["audio"], {})
    given = whole.model.encoder("audio").tower.state_dict()
    assert all(torch.equal(given[name], x) for name, x in begun.tower.state_dict().items())
    assert begun.to_embedding.weight.shape == (20, 20)
