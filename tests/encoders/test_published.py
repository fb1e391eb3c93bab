"""Published weights are all there, or an error says which are not: nothing is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codi.config import ConfigError
from codi.encoders.published import load_published

pytest.importorskip("transformers", reason="needs codi[external]")

LAYER = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a tiny CLIP and a tiny CLAP as the library does."""
    from transformers import ClapConfig, ClapModel, CLIPConfig, CLIPModel

    text = LAYER | {"intermediate_size": 8, "vocab_size": 9}
    ends = {"bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 1}
    vision = LAYER | {"intermediate_size": 8, "image_size": 8, "patch_size": 4}
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1]}
    audio |= {"num_attention_heads": [1, 2], "window_size": 4, "spec_size": 128}
    clip = CLIPConfig(
        text_config=text | ends | {"projection_dim": 6},
        vision_config=vision | {"projection_dim": 6},
        projection_dim=6,
    )
    clap = ClapConfig(text_config=text, audio_config=audio, projection_dim=6)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("clip", "clap")}
    CLIPModel(clip).save_pretrained(folders["clip"])
    ClapModel(clap).save_pretrained(folders["clap"])
    return folders


def _changed(folder: Path, to: Path, change: Any) -> Path:
    """Write a folder again with `change` done to its tensors by name."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), to / "model.safetensors", metadata={"format": "pt"})
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    return to


def _without(*starts: str) -> Any:
    return lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(starts)}


TOWERS = [
    ("clip", "CLIPTextModelWithProjection", "text_model."),
    ("clip", "CLIPVisionModelWithProjection", "vision_model."),
    ("clip", "CLIPVisionModelWithProjection", "visual_projection."),
    ("clap", "ClapTextModelWithProjection", "text_model."),
    ("clap", "ClapAudioModelWithProjection", "audio_model."),
    ("clap", "ClapAudioModelWithProjection", "audio_projection."),
]


@pytest.mark.parametrize(("of", "class_name", "lacks"), TOWERS)
def test_a_tower_that_is_not_in_the_file_is_an_error_that_names_it(
    of: str, class_name: str, lacks: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = _changed(saved[of], tmp_path, _without(lacks))
    with pytest.raises(ConfigError, match=rf"lacks {lacks}.*which a {class_name} needs") as caught:
        load_published(class_name, str(folder), {})
    assert str(folder / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("of", "class_name", "lacks"), TOWERS)
def test_what_follows_from_the_sizes_need_not_be_stored(
    of: str, class_name: str, lacks: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        ends = ("position_ids", "token_type_ids", "relative_position_index", "_tracked")
        return {k: v for k, v in tensors.items() if not k.endswith(ends)}

    whole = load_published(class_name, str(saved[of]), {}).state_dict()
    less = load_published(class_name, str(_changed(saved[of], tmp_path, change)), {}).state_dict()
    assert any(name.startswith(lacks) for name in whole)
    assert all(torch.equal(less[name], value) for name, value in whole.items())


def test_weights_of_another_size_than_their_configuration_are_an_error(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = _changed(saved["clip"], tmp_path, dict)
    about = json.loads((folder / "config.json").read_text())
    about["text_config"]["vocab_size"] = 11
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"token_embedding.weight is \(9, 8\) and takes \(11, 8"):
        load_published("CLIPTextModelWithProjection", str(folder), {})


def test_a_damaged_file_is_an_error(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(saved["clip"], tmp_path, dict)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ConfigError, match="cannot load CLIPTextModelWithProjection from"):
        load_published("CLIPTextModelWithProjection", str(folder), {})
