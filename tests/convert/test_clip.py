"""A folder of CLIP, whatever its size -> a model that reads and sees as it does, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from codi.build import ModelConfig, load_config
from codi.cli import main
from codi.config import ConfigError
from codi.convert.converting import convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.weights import load_model
from tests.convert.toy import folder_of_holes

transformers = pytest.importorskip("transformers", reason="needs codi[external]")

WIDTH = 12
COMMON = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_act": "gelu"}
TEXT: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 20, "vocab_size": 59}
TEXT |= {"max_position_embeddings": 8, "bos_token_id": 57, "eos_token_id": 58, **COMMON}
VISION = {"hidden_size": 16, "intermediate_size": 24, "image_size": 8, "patch_size": 4, **COMMON}


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5]}


def _with(folder: Path, to: Path, **tables: dict[str, Any]) -> Path:
    """Write a folder with the weights of another; values of its config.json, or files, changed."""
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    files = {"config": json.loads((folder / "config.json").read_text())}
    for name, table in tables.items():
        if name.startswith(("preprocessor", "processor")):
            files[name] = table
        else:
            files["config"][name] = files["config"][name] | table
    for name, table in files.items():
        (to / f"{name}.json").write_text(json.dumps(table))
    return to


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


def _encoders(model: ModelConfig) -> dict[str, Any]:
    """Return the configuration of each encoder, wherever the tokenizer lies."""
    return {
        name: {key: value for key, value in table.items() if key != "tokenizer"}
        for name, table in model.encoders.items()
    }


@torch.no_grad()
def test_what_is_exported_is_loaded_by_the_library_and_converts_back(
    clip: Any, folder: Path, tmp_path: Path
) -> None:
    source = _with(folder, tmp_path / "source", preprocessor_config=HALF)
    convert(prepare([str(source)], tmp_path / "model"))
    to = tmp_path / "theirs"
    write_export(prepare_export(tmp_path / "model", "clip"), to)
    ids, pictures = torch.tensor([[57, 3, 5, 58]]), torch.randn(1, 3, 8, 8)
    text = transformers.CLIPTextModelWithProjection.from_pretrained(to).eval()
    states = clip.text_model(input_ids=ids).pooler_output
    torch.testing.assert_close(text(input_ids=ids).text_embeds, clip.text_projection(states))
    vision = transformers.CLIPVisionModelWithProjection.from_pretrained(to).eval()
    states = clip.vision_model(pixel_values=pictures).pooler_output
    expected = clip.visual_projection(states)
    torch.testing.assert_close(vision(pixel_values=pictures).image_embeds, expected)
    whole = transformers.CLIPConfig.from_pretrained(to)
    assert (whole.projection_dim, whole.text_config.hidden_size) == (WIDTH, 8)
    back = prepare([str(to)], tmp_path / "back")
    assert set(back.plan.parts) == {"encoders.text", "encoders.vision"}
    assert _encoders(back.plan.model) == _encoders(load_config(tmp_path / "model"))


def test_one_tower_that_is_exported_converts_back_alone(clip: Any, tmp_path: Path) -> None:
    tower = transformers.CLIPTextModelWithProjection(clip.config.text_config)
    tower.save_pretrained(tmp_path / "text")
    convert(prepare([str(tmp_path / "text")], tmp_path / "model"))
    write_export(prepare_export(tmp_path / "model", "clip"), tmp_path / "theirs")
    back = prepare([str(tmp_path / "theirs")], tmp_path / "back")
    assert _encoders(back.plan.model) == _encoders(load_config(tmp_path / "model"))


def _as_published(tmp_path: Path) -> Path:
    """Write a folder of the sizes of ViT-B/32, with a file of holes."""
    text = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    vision = {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 32}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    return folder_of_holes(tmp_path, transformers.CLIPModel, config)


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
    message = (
        r"config\.json: encoders\.text computes with hidden_act = 'gelu', and this model with "
        r"activation = 'quick_gelu'; set it so"
    )
    with pytest.raises(ConfigError, match=message):
        prepare([str(folder)], tmp_path / "again", model=str(other))


def test_a_damaged_description_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text('{"text_config": 5}')
    with pytest.raises(ConfigError, match=r"config\.json: is damaged .*; fetch it again"):
        prepare([str(tmp_path)], tmp_path / "model")


@pytest.mark.parametrize("tower", ["text", "vision"])
def test_another_number_of_heads_is_not_passed_over(
    tower: str, folder: Path, tmp_path: Path
) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    heads = {f"{tower}_config": {"num_attention_heads": 4}}
    other = _with(folder, tmp_path / "other", **heads)
    message = (
        rf"other/config\.json: encoders\.{tower} computes with num_attention_heads = 4, and this "
        "model with heads = 2; set"
    )
    with pytest.raises(ConfigError, match=message):
        prepare([str(other)], tmp_path / "again", model=str(tmp_path / "model"))
    assert prepare([str(folder)], tmp_path / "again", model=str(tmp_path / "model")).plan.parts


@pytest.mark.parametrize("tower", ["text", "vision"])
@pytest.mark.parametrize("own", [True, False])
def test_norms_that_compute_otherwise_are_refused(
    own: bool, tower: str, folder: Path, tmp_path: Path
) -> None:
    norms = {f"{tower}_config": {"layer_norm_eps": 1e-6}}
    other = _with(folder, tmp_path / "other", **norms)
    if not own:
        convert(prepare([str(folder)], tmp_path / "model"))
    message = (
        rf"config\.json: has layer_norm_eps = 1e-06, and the {tower} tower here computes with 1e-05"
    )
    with pytest.raises(ConfigError, match=message):
        prepare([str(other)], tmp_path / "to", model=None if own else str(tmp_path / "model"))


@torch.no_grad()
def test_pictures_are_prepared_as_the_file_beside_the_weights_says(
    folder: Path, tmp_path: Path
) -> None:
    source = _with(folder, tmp_path / "source", preprocessor_config=HALF)
    convert(prepare([str(source)], tmp_path / "model"))
    vision: Any = load_model(tmp_path / "model").encoder("image")
    white = vision.pictures(torch.ones(1, 3, 8, 8))[0, :, 0, 0]
    torch.testing.assert_close(white, torch.tensor([2.0, 1.0, 1.0]))
    convert(prepare([str(folder)], tmp_path / "openai"))
    message = (
        r"vision computes with image_mean = .0\.5, .* \(in preprocessor_config\.json\), and this "
        "model with pixel_mean = "
    )
    with pytest.raises(ConfigError, match=message):
        prepare([str(source)], tmp_path / "to", model=str(tmp_path / "openai"))
    one = _with(folder, tmp_path / "one", preprocessor_config={"image_std": 0.5})
    config = prepare([str(one)], tmp_path / "to").plan.parts["encoders.vision"].config
    assert config.pixel_deviation == (0.5, 0.5, 0.5)


def test_the_library_also_says_it_in_the_file_of_a_whole_processor(
    folder: Path, tmp_path: Path
) -> None:
    told = {"image_processor": HALF | {"size": {"shortest_edge": 8}}, "processor_class": "Any"}
    source = _with(folder, tmp_path / "source", processor_config=told)
    config = prepare([str(source)], tmp_path / "to").plan.parts["encoders.vision"].config
    assert config.pixel_deviation == (0.25, 0.5, 0.5)
    convert(prepare([str(folder)], tmp_path / "openai"))
    message = (
        r"computes with image_mean = .* \(in processor_config\.json\), and this model with pixel"
    )
    with pytest.raises(ConfigError, match=message):
        prepare([str(source)], tmp_path / "again", model=str(tmp_path / "openai"))
    squashed = {"image_processor": {"do_center_crop": False}}
    other = _with(folder, tmp_path / "squashed", processor_config=squashed)
    with pytest.raises(
        ConfigError, match=r"has do_center_crop = False \(in processor_config\.json\)"
    ):
        prepare([str(other)], tmp_path / "again")
    mute = _with(folder, tmp_path / "mute", processor_config={"processor_class": "Any"})
    assert prepare([str(mute)], tmp_path / "to").plan.parts["encoders.vision"]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"size": {"shortest_edge": 9}}, r"size = \{'shortest_edge': 9\} \(in preprocessor_config"),
        ({"size": {"height": 8, "width": 8}}, "scales the shorter edge to 8"),
        ({"size": [8, 8]}, "scales the shorter edge to 8"),
        ({"crop_size": 6}, "crop_size = 6"),
        ({"do_center_crop": False}, "remove the key there if the difference is meant"),
        ({"do_normalize": False}, "has do_normalize = False"),
        ({"do_resize": False}, "has do_resize = False"),
        ({"do_rescale": False}, "has do_rescale = False"),
        ({"resample": 2}, r"has resample = 2 .*computes with 3 only"),
    ],
)
def test_pictures_that_are_cut_otherwise_are_refused(
    own: bool, table: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    other = _with(folder, tmp_path / "other", preprocessor_config=table)
    with pytest.raises(ConfigError, match=message):
        prepare([str(other)], tmp_path / "to", model=None if own else str(tmp_path / "model"))


@pytest.mark.parametrize("own", [True, False])
def test_a_tower_that_is_nothing_is_damage(own: bool, folder: Path, tmp_path: Path) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    other = _with(folder, tmp_path / "other")
    about = json.loads((other / "config.json").read_text()) | {"text_config": None}
    (other / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"other/config\.json: is damaged \(text_config is null"):
        prepare([str(other)], tmp_path / "to", model=None if own else str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("tower", "key", "value", "ours"),
    [("text", "hidden_act", "relu", "activation"), ("vision", "image_size", [8, 8], "size_px")],
)
def test_values_that_no_encoder_has_are_said_with_their_file(
    tower: str, key: str, value: Any, ours: str, folder: Path, tmp_path: Path
) -> None:
    other = _with(folder, tmp_path / "other", **{f"{tower}_config": {key: value}})
    with pytest.raises(ConfigError, match=rf"other/config\.json: .*{ours}"):
        prepare([str(other)], tmp_path / "to")


def test_two_towers_of_a_model_each_are_not_halved(clip: Any, tmp_path: Path) -> None:
    kinds = {
        "text": transformers.CLIPTextModelWithProjection(clip.config.text_config),
        "vision": transformers.CLIPVisionModelWithProjection(clip.config.vision_config),
    }
    for name, tower in kinds.items():
        tower.save_pretrained(tmp_path / name)
    message = r"text/model\.\w+ and .*vision/model.*; give one of them, or .* whole CLIPModel"
    with pytest.raises(ConfigError, match=message):
        prepare([str(tmp_path / name) for name in kinds], tmp_path / "to")


def test_a_description_of_something_else_is_not_of_the_weights(
    folder: Path, tmp_path: Path
) -> None:
    convert(prepare([str(folder)], tmp_path / "model"))
    other = _with(folder, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 5}')
    assert prepare([str(other)], tmp_path / "to", model=str(tmp_path / "model")).plan.parts
