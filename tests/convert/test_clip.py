"""A folder of CLIP, whatever its size -> a model that reads and sees as it does, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from codi.cli import main
from codi.config import ConfigError
from codi.convert.converting import convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.convert.writing import Slot, TensorFile
from codi.weights import load_model

transformers = pytest.importorskip("transformers", reason="needs codi[external]")

WIDTH = 12
COMMON = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_act": "gelu"}
TEXT: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 20, "vocab_size": 59}
TEXT |= {"max_position_embeddings": 8, "bos_token_id": 57, "eos_token_id": 58, **COMMON}
VISION = {"hidden_size": 16, "intermediate_size": 24, "image_size": 8, "patch_size": 4, **COMMON}


@pytest.fixture(scope="module")
def clip() -> Any:
    """Return a small CLIP of the library, with values that its first ones do not hide."""
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=WIDTH)
    torch.manual_seed(1)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(scope="module")
def folder(clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_folder_converts_without_a_word_on_its_size_and_sees_the_same(
    clip: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "model"
    assert main(["convert", str(folder), "--to", str(to)]) == 0
    assert "absent: encoders" not in capsys.readouterr().out
    model = load_model(to)
    assert set(model.config.modalities) == {"text", "image"}
    pictures = torch.rand(3, 3, 1, 8, 8) * 2.0 - 1.0
    vision: Any = model.encoder("image")
    prepared = vision.pictures(pictures[:, :, 0])
    states = clip.vision_model(pixel_values=prepared).pooler_output
    expected = normalize(clip.visual_projection(states))
    torch.testing.assert_close(vision.embed(pictures), expected, atol=1e-5, rtol=0)
    text: Any = model.encoder("text")
    ids = torch.tensor([[57, 3, 5, 58], [57, 9, 58, 58]])
    states = clip.text_model(input_ids=ids).last_hidden_state
    expected = clip.text_projection(states[torch.arange(2), ids.argmax(-1)])
    torch.testing.assert_close(text.to_embedding(text.read(ids)), expected, atol=1e-5, rtol=0)
    assert (text.config.context_width, text.config.activation) == (WIDTH, "gelu")


@torch.no_grad()
def test_one_tower_is_enough(clip: Any, tmp_path: Path) -> None:
    kinds = {
        "text": transformers.CLIPTextModelWithProjection(clip.config.text_config),
        "vision": transformers.CLIPVisionModelWithProjection(clip.config.vision_config),
    }
    for name, tower in kinds.items():
        tower.save_pretrained(tmp_path / name)
        convert(prepare([str(tmp_path / name)], tmp_path / f"{name}-model"))
        model = load_model(tmp_path / f"{name}-model", [f"encoders.{name}"])
        assert list(model.config.encoders) == [name]


def test_what_is_exported_converts_back(folder: Path, tmp_path: Path) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    write_export(prepare_export(tmp_path / "model", "clip"), tmp_path / "theirs")
    whole = tmp_path / "theirs" / "model.safetensors"
    back = prepare([str(whole)], tmp_path / "back", model=str(tmp_path / "model"))
    assert set(back.plan.parts) == {"encoders.text", "encoders.vision"}


def _as_published(tmp_path: Path) -> Path:
    """Write a folder of the sizes of ViT-B/32, with a file of holes."""
    text = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    vision = {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 32}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    with torch.device("meta"):
        state = transformers.CLIPModel(config).state_dict()
    slots = {name: Slot(tuple(x.shape), x.dtype) for name, x in state.items()}
    TensorFile(tmp_path / "model.safetensors", slots)._file.close()
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return tmp_path


def test_the_clip_that_most_have_fits_name_by_name(tmp_path: Path) -> None:
    conversion = prepare([str(_as_published(tmp_path))], tmp_path / "model")
    [source] = conversion.plan.sources
    assert set(source.unused) <= {"logit_scale"}
    vision = conversion.plan.parts["encoders.vision"].config
    assert (vision.context_width, vision.patch, vision.layers) == (512, 32, 12)
    assert vision.activation == "quick_gelu"
    text = conversion.plan.parts["encoders.text"].config
    assert (text.width, text.vocabulary, text.length) == (512, 49_408, 77)


def test_another_activation_is_not_passed_over(folder: Path, tmp_path: Path) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    config = (tmp_path / "model" / "config.toml").read_text()
    other = tmp_path / "other.toml"
    other.write_text(config.replace('"gelu"', '"quick_gelu"'))
    message = r"config\.json: encoders\.text computes with 'gelu', and this model with 'quick_gelu'"
    with pytest.raises(ConfigError, match=message):
        prepare([str(folder)], tmp_path / "again", model=str(other))


def test_a_damaged_description_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text('{"text_config": 5}')
    with pytest.raises(ConfigError, match=r"config\.json: is damaged .*; fetch it again"):
        prepare([str(tmp_path)], tmp_path / "model")
