"""Tables of CLIP and CLAP: every key of the released file, and parity with the library's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from codi.build import load_config
from codi.config import ConfigError
from codi.convert.encoders import (
    clap_audio,
    clap_audio_published,
    clap_contradiction,
    clip_contradiction,
    clip_text,
    clip_text_published,
    clip_text_settings,
    clip_vision,
    clip_vision_published,
)
from codi.convert.golden import Golden
from codi.convert.reading import PREPARATION
from codi.convert.rules import Table
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from tests.released import LAYOUT

pytest.importorskip("transformers", reason="needs codi[external]")

TEXT = ClipTextConfig(unit_context=True, keeps_unused=True)
VISION = ClipVisionConfig(temporal_blocks=True, frames=30, unit_context=True, keeps_unused=True)
AUDIO = ClapAudioConfig(unit_context=True, keeps_unused=True, resampling="windowed_sinc")
"""The released CoDi's encoders."""

RELEASED_PARTS = [
    pytest.param(TEXT, clip_text, "clip.model.", ("text_", "logit_scale"), id="text"),
    pytest.param(VISION, clip_vision, "clip.model.", ("vision_", "visual_"), id="vision"),
    pytest.param(AUDIO, clap_audio, "clap.model.", ("audio_",), id="audio"),
]


def _on_meta(config: Any) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def _released(prefix: str, starts: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the released tensors of one part, without memory for any of them."""
    found = {}
    lines = (LAYOUT / "CoDi_encoders.pth.tsv").read_text(encoding="utf-8").splitlines()
    for key, shape, dtype, _ in (line.split("\t") for line in lines[1:]):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.startswith(starts):
            sizes = () if shape == "scalar" else tuple(int(n) for n in shape.split("x"))
            found[name] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
    return found


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="needs the layouts of the released CoDi")
@pytest.mark.parametrize(("config", "table_of", "prefix", "starts"), RELEASED_PARTS)
@pytest.mark.parametrize("keeps_unused", [True, False])
def test_every_released_key_and_shape_has_its_place(
    config: Any, table_of: Any, prefix: str, starts: tuple[str, ...], keeps_unused: bool
) -> None:
    config = dataclasses.replace(config, keeps_unused=keeps_unused)
    table: Table = table_of(config)
    own = _on_meta(config).state_dict()
    released = _released(prefix, starts)
    state: dict[str, Tensor] = {}
    for name, tensor in released.items():
        found = table.to_ours(name, tensor)
        assert bool(found) != (table.why_unused(name) is not None), name
        assert not state.keys() & found.keys()
        state |= found
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in own.items()}
    used = {name for name in released if table.why_unused(name) is None}
    for name in used:
        assert table.to_foreign(name, state).shape == released[name].shape
    assert {found[0] for found in map(table.foreign, own) if found} == used


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (TEXT, 123_060_480 + 768 * 768 + 1),
        (VISION, 613_210_480 + 768 * 1024),
        (AUDIO, 277_606_551 + 1_181_184 + 2_164_224),
    ],
)
def test_the_released_encoders_have_their_parameters(config: Any, count: int) -> None:
    assert sum(p.numel() for p in _on_meta(config).parameters()) == count


@pytest.mark.parametrize(
    ("config", "table_of"), [(c.values[0], c.values[1]) for c in RELEASED_PARTS]
)
def test_exporting_undoes_converting(config: Any, table_of: Any) -> None:
    sizes: dict[Any, dict[str, Any]] = {
        ClipTextConfig: {"vocabulary": 20, "length": 8, "width": 16, "heads": 2, "layers": 2},
        ClipVisionConfig: {"size_px": 8, "patch": 4, "width": 12, "heads": 2, "layers": 2},
        ClapAudioConfig: {"channels": 8, "depths": (2, 1), "heads": (1, 2), "classes": 5,
                          "window": 4, "picture": 128, "duration_s": 1.0},
    }  # fmt: skip
    config = dataclasses.replace(config, **sizes[type(config)], context_width=10)
    table, own = table_of(config), config.build().state_dict()
    names = {found[0] for found in map(table.foreign, own) if found}
    foreign = {name: table.to_foreign(name, own) for name in names}
    back: dict[str, Tensor] = {}
    for name, tensor in foreign.items():
        back |= table.to_ours(name, tensor)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


# Folders of the library ---------------------------------------------------------------------------


def _saved(model: Any, folder: Path) -> dict[str, Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def _below(weights: dict[str, Tensor], starts: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(starts)}


@pytest.mark.parametrize("class_name", ["CLIPModel", "CLIPTextModelWithProjection"])
@torch.no_grad()
def test_a_published_clip_reads_the_same(class_name: str, tmp_path: Path) -> None:
    import transformers

    sizes = {"vocab_size": 30, "max_position_embeddings": 8, "hidden_size": 16,
             "intermediate_size": 40, "num_attention_heads": 2, "num_hidden_layers": 2}  # fmt: skip
    ends = {"eos_token_id": 29, "bos_token_id": 28, "projection_dim": 12}
    published = transformers.CLIPTextConfig(**sizes, **ends)
    if class_name == "CLIPModel":
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=published.to_dict(), projection_dim=12)
        )
    else:
        model = transformers.CLIPTextModelWithProjection(published)
    config = ClipTextConfig(12, 30, 8, 16, 2, 2, hidden_width=40, keeps_unused=True)
    ours = config.build().eval()
    weights = _below(_saved(model.eval(), tmp_path), ("text_", "logit_scale"))
    Golden(tmp_path / "x.json").filled(ours, clip_text_published(config), weights)
    tokens = torch.tensor([[28, 3, 4, 29, 29], [28, 5, 6, 7, 29]])
    expected = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
    torch.testing.assert_close(
        ours.project(ours.read(tokens)), normalize(expected), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_a_published_clip_sees_the_same(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 40, "num_attention_heads": 2,
             "num_hidden_layers": 2, "image_size": 8, "patch_size": 4}  # fmt: skip
    model = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**sizes, projection_dim=12)
    ).eval()
    config = ClipVisionConfig(12, 8, 4, 16, 2, 2, hidden_width=40, temporal_blocks=True)
    ours = config.build().eval()
    Golden(tmp_path / "x.json").filled(ours, clip_vision_published(config), _saved(model, tmp_path))
    pictures = torch.randn(6, 3, 8, 8)
    expected = normalize(model(pixel_values=pictures).image_embeds)
    found = ours.project(ours.look(pictures, 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("class_name", ["ClapModel", "ClapAudioModelWithProjection"])
@torch.no_grad()
def test_a_published_clap_hears_the_same(class_name: str, tmp_path: Path) -> None:
    import transformers

    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1],
             "num_attention_heads": [1, 2], "spec_size": 128, "window_size": 4,
             "patch_stride": [4, 4]}  # fmt: skip
    published = transformers.ClapAudioConfig(**audio, projection_dim=12)
    if class_name == "ClapModel":
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"intermediate_size": 16, "vocab_size": 20}
        model = transformers.ClapModel(
            transformers.ClapConfig(
                text_config=text, audio_config=published.to_dict(), projection_dim=12
            )
        )
    else:
        model = transformers.ClapAudioModelWithProjection(published)
    config = ClapAudioConfig(
        12, duration_s=1.0, channels=8, depths=(1, 1), heads=(1, 2), window=4, picture=128
    )
    ours = config.build().eval()
    weights = _below(_saved(model.eval(), tmp_path), ("audio_",))
    Golden(tmp_path / "x.json").filled(ours, clap_audio_published(config), weights)
    sounds = 0.3 * torch.randn(2, 16_000)
    tower = model.audio_model(input_features=ours.spectrogram(sounds)).pooler_output
    expected = normalize(model.audio_projection(tower))
    torch.testing.assert_close(ours.embed(sounds), expected, atol=1e-5, rtol=0)


# --- what config.json says otherwise, where shapes do not show it ---


def test_a_text_that_is_read_at_another_token_is_refused() -> None:
    read = ClipTextConfig()
    about = {"model_type": "clip_text_model", "hidden_size": 768, "num_attention_heads": 12}
    assert clip_contradiction(read, about) is None
    assert clip_contradiction(read, about | {"eos_token_id": 2}) is None
    other = about | {"eos_token_id": 7}
    with pytest.raises(ConfigError, match=r"has eos_token_id = 7, .* at token 49407, the last"):
        clip_contradiction(read, other)
    all_states = dataclasses.replace(read, sequence=True, unit_context=True)
    assert clip_contradiction(all_states, other) is None


def test_stable_diffusions_text_encoder_takes_what_it_can_be_set_to() -> None:
    config = load_config("stable-diffusion").part("encoders", "text")
    about = {"model_type": "clip_text_model", "hidden_size": 768, "num_attention_heads": 12}
    assert clip_text_settings(config, about | {"num_hidden_layers": 12}) == {}
    told = {"num_hidden_layers": 11, "hidden_act": "gelu", "num_attention_heads": 6}
    found = clip_text_settings(config, about | told)
    assert found == {"layers": 11, "activation": "gelu", "heads": 6}
    assert clip_text_settings(config, {}) == {}
    assert clip_text_settings(config, {"model_type": "bert", "hidden_act": "relu"}) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act = 'relu', and the encoder here computes with 'gelu'"),
        ({"qkv_bias": False}, "qkv_bias = False"),
        ({"projection_hidden_act": "gelu"}, "projection_hidden_act = 'gelu'"),
        ({"patch_stride": [2, 2]}, r"patch_stride = \[2, 2\]"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps = 1e-06"),
    ],
)
def test_a_clap_that_computes_otherwise_is_refused(values: dict[str, Any], message: str) -> None:
    config = ClapAudioConfig(heads=(4, 8, 16, 32))
    about = {"model_type": "clap_audio_model", "num_attention_heads": [4, 8, 16, 32]}
    assert clap_contradiction(config, about) is None
    with pytest.raises(ConfigError, match=message):
        clap_contradiction(config, about | values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sampling_rate", 16_000),
        ("hop_length", 320),
        ("frequency_min", 0),
        ("frequency_max", 8000),
        ("feature_size", 80),
    ],
)
def test_a_clap_that_hears_otherwise_is_said(key: str, value: int) -> None:
    about = {"model_type": "clap_audio_model", "num_attention_heads": [4, 8, 16, 32]}
    heard = {"sampling_rate": 48_000, "fft_window_size": 1024, "hop_length": 480}
    heard |= {"feature_size": 64, "frequency_min": 50, "frequency_max": 14_000}
    config = ClapAudioConfig()
    assert clap_contradiction(config, about | {PREPARATION: heard}) is None
    said = clap_contradiction(config, about | {PREPARATION: heard | {key: value}})
    assert said is not None
    assert f"computes with {key} = {value} (in preprocessor_config.json), and this model" in said
    moved = clap_contradiction(config, about | {"processor_config": heard | {key: value}})
    assert moved is not None
    assert f"computes with {key} = {value} (in processor_config.json), and" in moved
