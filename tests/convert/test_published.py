"""Folders as the libraries themselves save them -> our parts, which compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codi.build import Model
from codi.config import ConfigError
from codi.convert.converting import convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.diffusion import SAMPLERS, Noise, NoiseSource, ProductSpace
from codi.diffusion.sampling import Callback
from codi.folders import PRESETS
from codi.pipeline import Condition, SamplingSettings, load
from codi.weights import load_model

pytestmark = [
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
        "latent = [4, 1, 64, 64]": "latent = [4, 1, 8, 8]",
        "media = { size_px = 512 }": "media = { size_px = 16 }",
        "widths = [320, 640, 1280]": "widths = [8, 8]",
        "environment_width = 1280": "environment_width = 8",
        'kind = "clip_text"': 'kind = "clip_text"\ncontext_width = 12\nwidth = 12\nheads = 2\n'
        "layers = 2\nvocabulary = 59\nlength = 8",
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


def _autoencoder(
    library: Any, channels: int, latent: int, levels: int, layers: int, factor: float = 0.18215
) -> Any:
    return library.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(8 * 2**i for i in range(levels)),
        layers_per_block=layers,
        latent_channels=latent,
        scaling_factor=factor,
        norm_num_groups=4,
    ).eval()


WORDS = ["r e", "re d</w>", "b a", "l l</w>", "ba ll</w>"]


def _write_tokenizer(folder: Path) -> None:
    """Write the files of a tiny tokenizer of CLIP's kind: 59 tokens, of which the last ends."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [word.replace(" ", "") for word in WORDS] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *WORDS]) + "\n")


def _stable_diffusion(folder: Path) -> Any:
    """Return a small random Stable Diffusion of `diffusers`; only its tokenizer is in a folder."""
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
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"vocab_size": 59, "max_position_embeddings": 8, "intermediate_size": 48}
    ends = {"bos_token_id": 57, "eos_token_id": 58}
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes, **ends)).eval()
    for value in text.parameters():  # its own beginning is so small that all prompts are alike
        value.copy_(torch.randn_like(value) * 0.5)
    _write_tokenizer(folder / "files")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "files", model_max_length=8)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _named(text: Any) -> dict[str, torch.Tensor]:
    """Return a text model's tensors as `transformers` named them before version 5."""
    return {f"text_model.{name}": value.clone() for name, value in text.state_dict().items()}


def _single_file(pipeline: Any, ours: Path, to: Path) -> None:
    """Write the weights in latent diffusion's layout: one file, of the model made of the folder."""
    write_export(prepare_export(ours, "sd-ldm"), to)
    text = _named(pipeline.text_encoder)
    state = load_file(to)
    assert all(torch.equal(state[f"cond_stage_model.transformer.{k}"], v) for k, v in text.items())


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_a_folder_of_stable_diffusion(preset: Path, tmp_path: Path) -> None:
    theirs = _stable_diffusion(tmp_path)
    source = tmp_path / "sd"
    theirs.save_pretrained(source)
    model, found = _converted(source, preset, tmp_path / "model")
    assert found == {"unet": "sd-diffusers", "vae": "sd-diffusers", "text_encoder": "sd-bare-text"}

    z, t, context = torch.randn(2, 4, 8, 8), torch.tensor([5, 800]), torch.randn(2, 3, 12)
    expected = theirs.unet(z, t, context).sample
    ours = _part(model, "diffusers", "vision")(z[:, :, None], t + 1, context)[:, :, 0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    x = torch.randn(1, 3, 16, 16)
    latent = _part(model, "codecs", "image").encode(x[:, :, None])[:, :, 0]
    torch.testing.assert_close(latent / 0.18215, theirs.vae.encode(x).latent_dist.mode())

    for layout, parts in (
        ("sd-diffusers", {"unet/diffusion_pytorch_model": None, "vae/diffusion_pytorch_model": None,
                          "text_encoder/model": _named(theirs.text_encoder)}),
        ("sd-bare-text", {"text_encoder/model": None}),
    ):  # fmt: skip
        write_export(prepare_export(tmp_path / "model", layout), tmp_path / layout)
        for part, wanted in parts.items():
            before = wanted or load_file(source / f"{part}.safetensors")
            after = load_file(tmp_path / layout / f"{part}.safetensors")
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key], value) for key, value in after.items())


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_the_libraries_load_what_is_exported(preset: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    _stable_diffusion(tmp_path).save_pretrained(tmp_path / "sd")
    model, _found = _converted(tmp_path / "sd", preset, tmp_path / "model")
    to = tmp_path / "exported"
    write_export(prepare_export(tmp_path / "model", "sd-diffusers"), to)

    unet = diffusers.UNet2DConditionModel.from_pretrained(to / "unet")
    z, t, context = torch.randn(2, 4, 8, 8), torch.tensor([5, 800]), torch.randn(2, 3, 12)
    ours = _part(model, "diffusers", "vision")(z[:, :, None], t + 1, context)[:, :, 0]
    torch.testing.assert_close(unet(z, t, context).sample, ours, atol=1e-5, rtol=1e-4)

    vae, codec = (
        diffusers.AutoencoderKL.from_pretrained(to / "vae"),
        _part(model, "codecs", "image"),
    )
    assert vae.config.scaling_factor == 0.18215
    x = torch.randn(1, 3, 16, 16)
    latent = codec.posterior(x[:, :, None])[0]
    torch.testing.assert_close(vae.encode(x).latent_dist.mode(), latent[:, :, 0])
    pixels = codec.decode_raw(latent)[:, :, 0]
    torch.testing.assert_close(vae.decode(latent[:, :, 0]).sample, pixels, atol=1e-5, rtol=1e-4)

    text = transformers.CLIPTextModel.from_pretrained(to / "text_encoder").eval()
    ids = torch.tensor([[57, 3, 5, 58]])
    read = _part(model, "encoders", "text").states(ids)
    torch.testing.assert_close(text(input_ids=ids).last_hidden_state, read)


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return a list that holds the latents of whatever our pipeline samples, move by move."""
    seen: list[torch.Tensor] = []

    def sample(*given: Any, callback: Callback, **named: Any) -> torch.Tensor:
        def watch(i: int, n: int, t: int, z: torch.Tensor, z0: torch.Tensor) -> None:
            seen.append(z)
            callback(i, n, t, z, z0)

        return SAMPLERS["ddim"](*given, callback=watch, **named)

    monkeypatch.setattr("codi.pipeline.SAMPLERS", SAMPLERS | {"ddim": sample})
    return seen


SENTENCES = ["red ball", "", "a red red ball and a great ball", "z"]


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@pytest.mark.parametrize("form", ["folder", "single file"])
@torch.no_grad()
def test_text_becomes_the_picture_of_stable_diffusions_pipeline(
    form: str, preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty steps of DDIM, guidance 7.5 and eta 0, from the same latent noise: every latent."""
    theirs = _stable_diffusion(tmp_path)
    theirs.save_pretrained(tmp_path / "sd")
    _converted(tmp_path / "sd", preset, tmp_path / "model")
    if form == "single file":
        (tmp_path / "file").mkdir()
        _single_file(theirs, tmp_path / "model", tmp_path / "file" / "sd.safetensors")
        _write_tokenizer(tmp_path / "tokenizer")
        _converted(tmp_path / "file", preset, tmp_path / "of file")
    pipeline = load(tmp_path / ("model" if form == "folder" else "of file"), device="cpu")

    for sentence in SENTENCES:
        tokens = theirs.tokenizer(
            [sentence], padding="max_length", max_length=8, truncation=True, return_tensors="pt"
        ).input_ids
        expected = theirs.text_encoder(input_ids=tokens).last_hidden_state
        found = pipeline.encode_prompts("text", [sentence])
        assert (found - expected).abs().max() < 1e-5
    assert torch.equal(pipeline.empty_context(2), pipeline.encode_prompts("text", ["", ""]))

    space = ProductSpace({"image": (4, 1, 8, 8)})
    z = NoiseSource(Noise([3]), space)(0).view(1, 4, 8, 8)
    along = _watched(monkeypatch)
    for negative in (None, "a z"):
        their_way: list[torch.Tensor] = []

        def watch(
            _pipe: Any, _i: int, _t: Any, now: dict[str, Any], seen: list[Any] = their_way
        ) -> dict[str, Any]:
            seen.append(now["latents"])
            return now

        about = {"guidance_scale": 7.5, "num_inference_steps": 20, "eta": 0.0}
        wanted = theirs("red ball", negative_prompt=negative, latents=z, output_type="latent",
                        callback_on_step_end=watch, **about).images  # fmt: skip
        context, against = pipeline._contexts([Condition("text", "red ball")], None)
        if negative:
            against = pipeline.context([Condition("text", negative)])
        along.clear()
        made = pipeline.sample(
            context, ["image"], [3], settings=SamplingSettings(steps=20), against=against
        )["image"][:, :, 0]
        assert len(along) == len(their_way) == 20
        for ours_now, theirs_now in zip(along, their_way, strict=True):
            error = (ours_now.view_as(theirs_now) - theirs_now).abs().max()
            assert error < 1e-3 * theirs_now.std()
        other = pipeline.sample(
            against, ["image"], [3], settings=SamplingSettings(steps=20), against=against
        )["image"][:, :, 0]
        assert (made - wanted).abs().max() < 1e-3 * wanted.std()
        assert (made - other).abs().max() > 0.02 * wanted.std()  # the prompt is heard
        picture = theirs("red ball", negative_prompt=negative, latents=z, output_type="np",
                         **about).images[0]  # fmt: skip
        prompts = [("text", negative)] if negative else []
        [ours] = pipeline.generate(
            [("text", "red ball")], ["image"], seeds=[3], negative=prompts, steps=20
        )["image"]
        assert np.abs(np.asarray(ours) / 255.0 - picture).max() <= 0.5 / 255 + 1e-3


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_a_model_without_its_tokenizer_says_where_to_put_it(preset: Path, tmp_path: Path) -> None:
    theirs = _stable_diffusion(tmp_path)
    theirs.text_encoder.save_pretrained(tmp_path / "alone")
    conversion = prepare([str(tmp_path / "alone")], tmp_path / "model", model=str(preset))
    convert(conversion)
    [(place, names)] = conversion.wanting.items()
    assert names == ("vocab.json", "merges.txt")
    with pytest.raises(ConfigError, match=r"vocab.json and merges.txt") as caught:
        load(tmp_path / "model", device="cpu").encode_prompts("text", ["red ball"])
    assert str(place) in str(caught.value)
    _write_tokenizer(place)
    found = load(tmp_path / "model", device="cpu").encode_prompts("text", ["red ball"])
    assert found.shape == (1, 8, 12)
    again = prepare([str(tmp_path / "alone")], tmp_path / "model")
    assert not again.wanting


@pytest.mark.parametrize("preset", ["stable-diffusion"], indirect=True)
@torch.no_grad()
def test_a_text_encoder_without_projection_is_passed_over_where_one_is_needed(
    preset: Path, tmp_path: Path
) -> None:
    theirs = _stable_diffusion(tmp_path)
    theirs.save_pretrained(tmp_path / "sd")
    preset.write_text(preset.read_text().replace("projection = false", "projection = true"))
    conversion = prepare([str(tmp_path / "sd")], tmp_path / "model", model=str(preset))
    assert "encoders.text" not in conversion.plan.parts
    [source] = [s for s in conversion.plan.sources if s.layout.name == "sd-bare-text"]
    assert all("without the projection" in why for why in source.unused.values())


@pytest.mark.parametrize("preset", ["release"], indirect=True)
@torch.no_grad()
def test_a_folder_of_audioldm(preset: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    transformers = pytest.importorskip("transformers", reason="needs codi[external]")
    vae = _autoencoder(diffusers, 1, 8, levels=3, layers=2, factor=0.9227914214134216)
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
    preset.write_text(preset.read_text().replace("projection = false", "projection = true"))
    common = {"num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 12}
    text = {"num_hidden_layers": 2, "hidden_size": 12, "intermediate_size": 48, "vocab_size": 59}
    text |= {"max_position_embeddings": 8, "bos_token_id": 57, "eos_token_id": 58}
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
    ids = torch.tensor([[57, 3, 5, 58]])
    theirs = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
    ours = encoder.to_embedding(encoder.tower(input_ids=ids).pooler_output)
    torch.testing.assert_close(ours, theirs)
