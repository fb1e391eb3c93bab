"""Folders as the libraries themselves save them -> our parts, which compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from codi.build import PRESETS, Model
from codi.convert.converting import convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.weights import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SMALLER = {
    "stable-diffusion": {
        "channels = 320": "channels = 16\ngroups = 8",
        "multipliers = [1, 2, 4, 4]": "multipliers = [1, 2]",
        "attention = [true, true, true, false]": "attention = [true, false]",
        "channels = 128": "channels = 8\ngroups = 4",
        "depth = 2": "depth = 1",
        "heads = 8": "heads = 2",
        "context_width = 768": "context_width = 12",
        "widths = [320, 640, 1280]": "widths = [8, 8]",
        "environment_width = 1280": "environment_width = 8",
        'kind = "clip_text"': 'kind = "clip_text"\ncontext_width = 12\nwidth = 8\nheads = 2\n'
        "layers = 1\nvocabulary = 40\nlength = 8",
        'kind = "clip_vision"': 'kind = "clip_vision"\ncontext_width = 12\nwidth = 16\nheads = 2\n'
        "layers = 1\nsize_px = 8\npatch = 4",
    },
    "release": {
        "channels = 128": "channels = 8\ngroups = 4",
        "channels = 1024\nupsample": "channels = 64\nupsample",
    },
}


@pytest.fixture
def preset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the file of a preset at a small size."""
    text = (PRESETS / f"{request.param}.toml").read_text()
    for at_full_size, small in SMALLER[request.param].items():
        assert at_full_size in text, at_full_size
        text = text.replace(at_full_size, small)
    path = tmp_path / "small.toml"
    path.write_text(text)
    return path


def _part(model: Model, role: str, name: str) -> Any:
    return model.role(role)[name]


def _converted(source: Path, preset: Path, to: Path) -> tuple[Model, dict[str, str]]:
    """Convert a folder; return the parts that it made, and the layout of each file by its folder.

    Raises:
        ConfigError: a name of the library's that no table knows.
    """
    conversion = prepare([str(source)], to, model=str(preset))
    convert(conversion)
    layouts = {s.checkpoint.path.parent.name: s.layout.name for s in conversion.plan.sources}
    return load_model(to, list(conversion.plan.parts)), layouts


def _index(folder: Path, **components: str) -> None:
    """Write the index of a pipeline with components of some libraries."""
    table = {name: [library, "X"] for name, library in components.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", **table}))


def _autoencoder(library: Any, channels: int, latent: int, levels: int, layers: int) -> Any:
    return library.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(8 * 2**i for i in range(levels)),
        layers_per_block=layers,
        latent_channels=latent,
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_a_folder_of_stable_diffusion(preset: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()
    vae = _autoencoder(diffusers, 3, 4, levels=2, layers=1)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(intermediate_size=32, **shape))
    source = tmp_path / "sd"
    unet.save_pretrained(source / "unet")
    vae.save_pretrained(source / "vae")
    text.save_pretrained(source / "text_encoder")
    _index(source, unet="diffusers", vae="diffusers", text_encoder="transformers")
    model, found = _converted(source, preset, tmp_path / "model")
    assert found == dict.fromkeys(("unet", "vae", "text_encoder"), "sd-diffusers")

    z, t, context = torch.randn(2, 4, 8, 8), torch.tensor([5, 800]), torch.randn(2, 3, 12)
    theirs = unet(z, t, context).sample
    ours = _part(model, "diffusers", "vision")(z[:, :, None], t + 1, context)[:, :, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    x = torch.randn(1, 3, 16, 16)
    latent = _part(model, "codecs", "image").encode(x[:, :, None])[:, :, 0]
    torch.testing.assert_close(latent / 0.18215, vae.encode(x).latent_dist.mode())

    write_export(prepare_export(tmp_path / "model", "sd-diffusers"), tmp_path / "back")
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        before, after = load_file(source / name), load_file(tmp_path / "back" / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], value) for key, value in after.items())


@pytest.mark.parametrize("preset", ["release"], indirect=True)
@torch.no_grad()
def test_a_folder_of_audioldm(preset: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    vae = _autoencoder(diffusers, 1, 8, levels=3, layers=2)
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=64,
            upsample_initial_channel=64,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            normalize_before=False,
        )
    ).eval()
    source = tmp_path / "audioldm"
    vae.save_pretrained(source / "vae")
    vocoder.save_pretrained(source / "vocoder")
    _index(source, vae="diffusers", vocoder="transformers")
    model, found = _converted(source, preset, tmp_path / "model")
    assert found == {"vae": "audioldm-diffusers", "vocoder": "audioldm-diffusers"}
    codec = _part(model, "codecs", "audio")
    latent = torch.randn(1, 8, 16, 16)
    theirs = vocoder(vae.decode(latent).sample[:, 0])
    ours = codec.decode_raw(latent[:, :, None])  # without what hangs over the last column
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_a_folder_of_clip_with_its_tokenizer(preset: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    common = {"num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 12}
    text = {"hidden_size": 8, "intermediate_size": 32, "vocab_size": 40}
    text |= {"max_position_embeddings": 8, "bos_token_id": 38, "eos_token_id": 39}
    vision = {"hidden_size": 16, "intermediate_size": 64, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(
        text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=12
    )
    clip = transformers.CLIPModel(config).eval()
    source = tmp_path / "clip"
    clip.save_pretrained(source)
    for name in ("vocab.json", "merges.txt"):
        (source / name).write_text("{}")
    model, found = _converted(source, preset, tmp_path / "model")
    assert found == {"clip": "clip"}
    tokenizer = tmp_path / "model" / "text" / "encoder-tokenizer"
    assert {path.name for path in tokenizer.iterdir()} == {"vocab.json", "merges.txt"}
    assert Path(model.config.encoders["text"]["tokenizer"]) == tokenizer
    encoder = _part(model, "encoders", "text")
    ids = torch.tensor([[38, 3, 5, 39]])
    theirs = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
    ours = encoder.to_embedding(encoder.tower(input_ids=ids).pooler_output)
    torch.testing.assert_close(ours, theirs)
