"""Exported folders that `diffusers` loads by one call, and what is said where they are not all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codi.build import Model, load_config
from codi.cli import main
from codi.config import ConfigError
from codi.convert.exporting import prepare_export, write_export
from codi.convert.locating import open_source
from codi.diffusion import Noise, NoiseSource, ProductSpace
from codi.pipeline import SamplingSettings, load
from codi.weights import part_files, save_model
from tests.convert.test_published import _write_tokenizer
from tests.small import awake

pytest.importorskip("transformers", reason="needs codi[external]")

PARTS = ("codecs.image", "encoders.text", "diffusers.vision")
SMALL = (
    "modalities.image.latent=[4, 1, 8, 8]",
    "modalities.image.media.size_px=16",
    "codecs.image.channels=8",
    "codecs.image.groups=4",
    "codecs.image.multipliers=[1, 2]",
    "codecs.image.depth=1",
    "encoders.text.context_width=12",
    "encoders.text.width=12",
    "encoders.text.heads=2",
    "encoders.text.layers=2",
    "encoders.text.vocabulary=59",
    "encoders.text.length=8",
    "encoders.vision.context_width=12",
    "environments.vision.environment_width=8",
    "diffusers.vision.channels=16",
    "diffusers.vision.groups=8",
    "diffusers.vision.multipliers=[1, 2]",
    "diffusers.vision.attention=[true, false]",
    "diffusers.vision.depth=1",
    "diffusers.vision.heads=2",
    "diffusers.vision.context_width=12",
    "diffusers.vision.environment_width=8",
)
"""What makes Stable Diffusion small."""

CHANGED = (
    "schedule.kind=linear",
    "schedule.beta_start=0.0001",
    "schedule.beta_end=0.02",
    "schedule.zero_terminal_snr=true",
    "sampling.spacing=trailing",
    "modalities.image.prediction=velocity",
)
"""Another schedule, of which no number is what the library takes by default."""


def _saved(folder: Path, *assignments: str, preset: str = "stable-diffusion") -> Path:
    """Write a small model with a tokenizer into a folder."""
    _write_tokenizer(folder / "words")
    named = f'encoders.text.tokenizer="{folder / "words"}"'
    model = Model(load_config(preset, [*SMALL, named, *assignments]), PARTS)
    for part in model.modules():
        if isinstance(part, torch.nn.Embedding):  # so small that all prompts would be alike
            torch.nn.init.normal_(part.weight, std=0.5)
    save_model(awake(model), folder / "model")
    return folder / "model"


def _table(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(path.read_text())
    return table


@pytest.mark.parametrize("form", ["two files", "one file"])
def test_a_whole_folder_has_an_index_of_what_is_in_it(form: str, tmp_path: Path) -> None:
    model, to = _saved(tmp_path), tmp_path / "exported"
    kept = model / "text" / "encoder-tokenizer"
    names = ["merges.txt", "vocab.json"]
    if form == "one file":  # as `transformers` 5 saves it
        for name in names:
            (kept / name).unlink()
        (kept / "tokenizer.json").write_text("{}")
        (kept / "tokenizer_config.json").write_text('{"pad_token": "!", "model_max_length": 9}')
        names = ["tokenizer.json"]
    written = write_export(prepare_export(model, "sd-diffusers"), to)
    assert to / "model_index.json" in written
    index = _table(to / "model_index.json")
    assert index["_class_name"] == "StableDiffusionPipeline"
    there = {name for name, what in index.items() if isinstance(what, list) and any(what)}
    assert there == {path.name for path in to.iterdir() if path.is_dir()}
    assert _table(to / "unet" / "config.json")["sample_size"] == 8
    tokenizer = to / "tokenizer"
    assert sorted(p.name for p in tokenizer.iterdir()) == sorted([*names, "tokenizer_config.json"])
    assert all((tokenizer / name).read_bytes() == (kept / name).read_bytes() for name in names)
    about = _table(tokenizer / "tokenizer_config.json")
    assert about["model_max_length"] == 8  # the text model's, whatever was beside it
    assert about["tokenizer_class"] == "CLIPTokenizer"
    assert about.get("pad_token") == ("!" if form == "one file" else None)
    assert len(open_source(str(to))) == 3  # and it is read again
    assert not list(to.rglob(".*"))


def test_the_scheduler_has_the_models_numbers(tmp_path: Path) -> None:
    found = {}
    for name, assignments in (("sd", ()), ("other", CHANGED)):
        model = _saved(tmp_path / name, *assignments)
        write_export(prepare_export(model, "sd-diffusers"), tmp_path / name / "exported")
        path = tmp_path / name / "exported" / "scheduler" / "scheduler_config.json"
        found[name] = _table(path)
    one, other = found["sd"], found["other"]
    assert (one["beta_schedule"], one["beta_start"], one["beta_end"]) == (
        "scaled_linear",
        0.00085,
        0.012,
    )
    assert (one["timestep_spacing"], one["set_alpha_to_one"]) == ("leading", False)
    assert (one["prediction_type"], one["rescale_betas_zero_snr"]) == ("epsilon", False)
    assert (other["beta_schedule"], other["beta_end"]) == ("linear", 0.02)
    assert (other["timestep_spacing"], other["set_alpha_to_one"]) == ("trailing", True)
    assert (other["prediction_type"], other["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_without_all_of_it_there_is_no_index_and_a_line_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, to = _saved(tmp_path), tmp_path / "exported"
    words = ["export", str(model), "--as", "sd-diffusers", "--to", str(to)]

    def said() -> str:
        assert main(words) == 0
        lines = capsys.readouterr().out.replace("\n", " ")
        assert not (to / "model_index.json").exists()
        assert not (to / "tokenizer").exists()
        return lines.partition("no model_index.json: ")[2]

    shutil.rmtree(model / "text" / "encoder-tokenizer")
    line = said()
    assert line.startswith("tokenizer is missing (vocab.json and merges.txt in ")
    assert "text/encoder-tokenizer)" in line
    assert f'transformers.CLIPTextModel.from_pretrained("{to}/text_encoder")' in line
    for part in ("encoders.text", "codecs.image"):
        for path in part_files(model, part):
            path.unlink()
    assert said().startswith(
        "text_encoder is missing (encoders.text); vae is missing (codecs.image); load what is "
        f'there with diffusers.UNet2DConditionModel.from_pretrained("{to}/unet")'
    )
    assert main([*words[:-1], str(tmp_path / "alone.safetensors")]) == 0
    assert "model_index" not in capsys.readouterr().out


def test_a_model_that_is_no_stable_diffusion_has_no_index(tmp_path: Path) -> None:
    model = _saved(tmp_path, "diffusers.vision.first_step=1")
    export = prepare_export(model, "sd-diffusers")
    assert export.not_whole == ["unet counts its steps from 1, and diffusers from 0"]
    export = prepare_export(model, "sd-old-diffusers")
    assert (
        export.not_whole[0] == "text_encoder is missing (model 'stable-diffusion' has no such part)"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("spacing", "karras"), ("spacing", "linspace"), ("sampler", "dpmpp_2m")],
)
def test_a_model_that_samples_otherwise_has_no_index(key: str, value: str, tmp_path: Path) -> None:
    model, to = _saved(tmp_path, f"sampling.{key}={value}"), tmp_path / "exported"
    export = prepare_export(model, "sd-diffusers")
    assert export.not_whole == [f"sampling.{key} is {value!r}, which its DDIM has not"]
    write_export(export, to)
    assert not (to / "model_index.json").exists()
    assert not (to / "scheduler").exists()


def test_an_older_index_goes_where_the_new_folders_are_not_whole(tmp_path: Path) -> None:
    to = tmp_path / "exported"
    write_export(prepare_export(_saved(tmp_path / "whole"), "sd-diffusers"), to)
    assert (to / "model_index.json").is_file()
    model = _saved(tmp_path / "other", "sampling.spacing=karras")
    written = write_export(prepare_export(model, "sd-diffusers"), to)
    assert not (to / "model_index.json").exists()
    assert all(path.is_file() for path in written)


def test_a_damaged_tokenizer_is_said(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    kept = model / "text" / "encoder-tokenizer"
    (kept / "merges.txt").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (kept / name).write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: is not JSON"):
        prepare_export(model, "sd-diffusers")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("assignments", [(), CHANGED], ids=["sd", "other"])
@torch.no_grad()
def test_the_library_makes_our_picture_of_the_folder(
    assignments: tuple[str, ...], tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    model, to = _saved(tmp_path, *assignments), tmp_path / "exported"
    write_export(prepare_export(model, "sd-diffusers"), to)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(to)
    theirs.set_progress_bar_config(disable=True)
    ours = load(model, device="cpu")
    levels = ours.config.schedule.build().alpha_bar[1:].float()
    torch.testing.assert_close(theirs.scheduler.alphas_cumprod, levels, atol=1e-6, rtol=1e-4)

    z = NoiseSource(Noise([3]), ProductSpace({"image": (4, 1, 8, 8)}))(0).view(1, 4, 8, 8)
    about = {"num_inference_steps": 2, "guidance_scale": 7.5, "latents": z}
    wanted = theirs("red ball", output_type="latent", **about).images
    context = ours.encode_prompts("text", ["red ball"])
    made = ours.sample(
        context,
        ["image"],
        [3],
        settings=SamplingSettings(steps=2, eta=0.0),
        against=ours.empty_context(1),
    )["image"][:, :, 0]
    assert (made - wanted).abs().max() < 1e-3 * wanted.std()
    picture = theirs("red ball", output_type="np", **about).images[0]
    assert picture.shape == (16, 16, 3)
    [image] = ours.generate([("text", "red ball")], ["image"], seeds=[3], steps=2, eta=0.0)["image"]
    assert np.abs(np.asarray(image) / 255.0 - picture).max() <= 0.5 / 255 + 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@torch.no_grad()
def test_the_library_loads_audioldms_codec_folder_by_folder(tmp_path: Path) -> None:
    import transformers

    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    small = ["codecs.audio.autoencoder.channels=8", "codecs.audio.autoencoder.groups=4",
             "codecs.audio.vocoder.channels=64"]  # fmt: skip
    model = Model(load_config("release", small), ["codecs.audio"])
    save_model(model, tmp_path / "model")
    export = prepare_export(tmp_path / "model", "audioldm-diffusers")
    assert "unet is missing (model 'release' has no such part)" in export.not_whole
    write_export(export, tmp_path / "to")
    codec: Any = model.role("codecs")["audio"]
    vocoder = transformers.SpeechT5HifiGan.from_pretrained(tmp_path / "to" / "vocoder").eval()
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "to" / "vae")
    latent = torch.randn(1, 8, 16, 16)
    expected = codec.decode_raw(latent[:, :, None])
    found = vocoder(vae.decode(latent).sample[:, 0])[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
