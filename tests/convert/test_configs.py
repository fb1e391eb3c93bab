"""What lies beside weights is taken, or held against the model, or refused; never passed over."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codi.build import Model, ModelConfig, load_config
from codi.codecs.mel import MelCodecConfig
from codi.config import ConfigError, to_toml
from codi.convert import configs
from codi.convert import layouts as registry
from codi.convert.codecs import vocoder_config
from codi.convert.converting import Conversion, convert, prepare
from codi.convert.exporting import prepare_export, write_export
from codi.diffusion import NoiseSchedule
from codi.weights import save_model
from tests.convert.test_pipelines import SMALL
from tests.small import awake

UNET, VAE = "unet/config.json", "vae/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
AS_STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the TOML file of a small Stable Diffusion, beside its weights as libraries do."""
    folder = tmp_path_factory.mktemp("small")
    config = load_config("stable-diffusion", SMALL)
    save_model(awake(Model(config, ("codecs.image", "diffusers.vision"))), folder / "model")
    write_export(prepare_export(folder / "model", "sd-diffusers"), folder / "sd")
    write_export(prepare_export(folder / "model", "sd-ldm"), folder / "sd.safetensors")
    (folder / "sd" / "scheduler").mkdir()
    (folder / "sd" / SCHEDULER).write_text(json.dumps(AS_STABLE_DIFFUSION))
    (folder / "small.toml").write_text(to_toml(config))
    return folder / "small.toml"


@pytest.fixture(autouse=True)
def known(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small model be the one that Stable Diffusion's files become."""
    layouts = tuple(
        dataclasses.replace(layout, preset=str(small))
        if layout.preset == "stable-diffusion"
        else layout
        for layout in registry.LAYOUTS
    )
    monkeypatch.setattr(registry, "LAYOUTS", layouts)


def _with(small: Path, to: Path, file: str, **values: Any) -> Path:
    """Copy the folder, with other values in one of its small files."""
    source = to / "source"
    shutil.copytree(small.parent / "sd", source, copy_function=_linked)
    table = json.loads((source / file).read_text())
    (source / file).unlink()
    (source / file).write_text(json.dumps(table | values))
    return source


def _linked(one: str, other: str) -> None:
    Path(other).symlink_to(one)


def _prepared(source: Path, model: Path | None = None) -> Conversion:
    return prepare(
        [str(source)], source.parent / "model", model=None if model is None else str(model)
    )


TAKEN: list[tuple[str, dict[str, Any], str, Any]] = [
    (VAE, {"scaling_factor": 0.13025}, "codecs.image.scale_factor", 0.13025),
    (VAE, {"norm_num_groups": 2}, "codecs.image.groups", 2),
    (UNET, {"attention_head_dim": 4}, "diffusers.vision.heads", 4),
    (UNET, {"attention_head_dim": [2, 4]}, "diffusers.vision.head_channels", 8),
    (UNET, {"num_attention_heads": 4}, "diffusers.vision.heads", 4),
    (UNET, {"norm_num_groups": 4}, "diffusers.vision.groups", 4),
    (UNET, {"prediction_type": "v_prediction"}, "modalities.image.prediction", "velocity"),
    (SCHEDULER, {"prediction_type": "sample"}, "modalities.video.prediction", "sample"),
    (SCHEDULER, {"beta_schedule": "linear"}, "schedule.kind", "linear"),
    (SCHEDULER, {"beta_start": 0.001}, "schedule.beta_start", 0.001),
    (SCHEDULER, {"beta_end": 0.02}, "schedule.beta_end", 0.02),
    (SCHEDULER, {"num_train_timesteps": 500}, "schedule.steps", 500),
    (SCHEDULER, {"rescale_betas_zero_snr": True}, "schedule.zero_terminal_snr", True),
]


def _at(model: ModelConfig, place: str) -> Any:
    value: Any = model
    for step in place.split("."):
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    return value


@pytest.mark.parametrize(("file", "values", "place", "value"), TAKEN)
def test_what_a_model_can_be_set_to_is_taken_or_held_against_the_one_named(
    file: str, values: dict[str, Any], place: str, value: Any, small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, file, **values)
    conversion = _prepared(source)
    assert _at(conversion.plan.model, place) == value
    notes = [note for found in conversion.plan.sources for note in found.notes]
    assert any(note.endswith(f"{source / file} tells") for note in notes)
    (key, said), *_ = values.items()
    key = "attention_head_dim" if "head" in key else key
    message = f"{source / file}: .* computes with {key} = {said!r}".replace("[", r"\[")
    with pytest.raises(ConfigError, match=message):
        _prepared(source, small)


@pytest.mark.slow
def test_a_folder_that_was_begun_so_goes_on_and_another_factor_is_refused(
    small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, VAE, scaling_factor=0.13025)
    convert(_prepared(source))
    assert load_config(tmp_path / "model").codecs["image"]["scale_factor"] == 0.13025
    convert(_prepared(source))
    with pytest.raises(ConfigError, match=r"scaling_factor = 0\.18215, and this model with"):
        prepare([str(small.parent / "sd" / "vae")], tmp_path / "model")


REFUSED: list[tuple[str, str, Any]] = [
    (UNET, "act_fn", "gelu"),
    (UNET, "norm_eps", 1e-6),
    (UNET, "freq_shift", 1),
    (UNET, "flip_sin_to_cos", False),
    (UNET, "use_linear_projection", True),
    (UNET, "transformer_layers_per_block", [1, 2]),
    (UNET, "resnet_time_scale_shift", "scale_shift"),
    (UNET, "class_embed_type", "timestep"),
    (UNET, "down_block_types", ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]),
    (UNET, "_class_name", "UNet3DConditionModel"),
    (UNET, "attention_head_dim", [2, 2, 2]),
    (VAE, "act_fn", "relu"),
    (VAE, "shift_factor", 0.1159),
    (VAE, "latents_std", [1.0, 2.0, 1.0, 1.0]),
    (VAE, "_class_name", "AutoencoderTiny"),
    (SCHEDULER, "prediction_type", "flow_prediction"),
    (SCHEDULER, "beta_schedule", "sigmoid"),
    (SCHEDULER, "trained_betas", [0.1, 0.2]),
]


def test_two_files_that_tell_two_predictions_are_refused(small: Path, tmp_path: Path) -> None:
    source = _with(small, tmp_path, SCHEDULER, prediction_type="epsilon")
    about = json.loads((source / UNET).read_text()) | {"prediction_type": "v_prediction"}
    (source / UNET).unlink()
    (source / UNET).write_text(json.dumps(about))
    message = r"unet/config\.json: has prediction_type = 'v_prediction', and .* has 'epsilon'; let"
    with pytest.raises(ConfigError, match=message):
        _prepared(source)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("file", "key", "value"), REFUSED)
def test_what_nothing_here_computes_is_refused_with_file_key_and_value(
    file: str, key: str, value: Any, named: bool, small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, file, **{key: value})
    with pytest.raises(ConfigError) as caught:
        _prepared(source, small if named else None)
    said = str(caught.value)
    assert said.startswith(f"{source / file}: ")
    assert "\n" not in said
    assert key in said
    assert repr(value) in said or key == "trained_betas"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta_start": "much"}, "is damaged"),
        ({"beta_start": -1.0}, r"is damaged \(beta_start = -1\.0"),
        ({"prediction_type": ["epsilon"]}, r"prediction_type = \['epsilon'\]"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "not a flow"),
    ],
)
def test_schedules_that_none_here_is_like_are_said(
    values: dict[str, Any], message: str, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler_config\.json: .*{message}"):
        _prepared(_with(small, tmp_path, SCHEDULER, **values))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (UNET, {"dropout": 0.1, "upcast_attention": True, "_name_or_path": "x"}),
        (UNET, {"only_cross_attention": [False, False], "mid_block_only_cross_attention": None}),
        (VAE, {"force_upcast": False, "sample_size": 512, "shift_factor": None}),
        (VAE, {"scaling_factor": 0.18213}),  # as 16 bits have it
        (SCHEDULER, {"timestep_spacing": "trailing", "steps_offset": 0, "clip_sample": True}),
    ],
)
def test_what_changes_nothing_is_passed_over(
    file: str, values: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, file, **values)
    taken = _prepared(source)
    assert not any(found.notes for found in taken.plan.sources)
    plain = _prepared(_with(small, tmp_path / "plain", file))
    assert taken.plan.model == plain.plan.model
    assert _prepared(source, small).plan.parts.keys() == taken.plan.parts.keys()


DAMAGED: list[tuple[str, str, Any]] = [
    (UNET, "attention_head_dim", [0, 2]),
    (UNET, "attention_head_dim", -2),
    (UNET, "attention_head_dim", None),
    (UNET, "attention_head_dim", True),
    (UNET, "num_attention_heads", 0),
    (UNET, "norm_num_groups", 0),
    (VAE, "norm_num_groups", 2.5),
    (VAE, "scaling_factor", float("nan")),
    (VAE, "scaling_factor", float("inf")),
    (VAE, "scaling_factor", None),
    (VAE, "scaling_factor", 0),
    (VAE, "scaling_factor", "0.18215"),
    (SCHEDULER, "beta_end", float("nan")),
    (SCHEDULER, "num_train_timesteps", 0),
    (SCHEDULER, "num_train_timesteps", 10.5),
]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("file", "key", "value"), DAMAGED)
def test_values_that_have_no_meaning_are_damage(
    file: str, key: str, value: Any, named: bool, small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, file, **{key: value})
    with pytest.raises(ConfigError) as caught:
        _prepared(source, small if named else None)
    assert str(caught.value).startswith(f"{source / file}: is damaged ({key} = {value!r}, where")


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("file", "key"),
    [(UNET, "attention_head_dim"), (UNET, "norm_num_groups"), (VAE, "norm_num_groups")],
)
def test_numbers_that_no_level_can_be_divided_into_are_said(
    file: str, key: str, named: bool, small: Path, tmp_path: Path
) -> None:
    source = _with(small, tmp_path, file, **{key: 3})
    with pytest.raises(ConfigError, match=rf"{file}: has {key} = 3, into which the \d+ channels"):
        _prepared(source, small if named else None)


def test_a_file_that_leaves_groups_out_has_the_librarys(small: Path, tmp_path: Path) -> None:
    config = load_config("stable-diffusion").part("codecs", "image")
    other = dataclasses.replace(config, groups=16)
    about = {"_class_name": "AutoencoderKL"}
    assert configs.autoencoder_settings(config, about) == {}
    assert configs.autoencoder_settings(other, about) == {"groups": 32}
    said = configs.autoencoder_contradiction(other, about)
    assert said is not None
    assert "norm_num_groups = 32, and this model with groups = 16" in said


def test_a_file_without_norms_is_refused() -> None:
    config = load_config("stable-diffusion").part("codecs", "image")
    about = {"_class_name": "AutoencoderKL", "norm_num_groups": None}
    with pytest.raises(ConfigError, match="norm_num_groups = None, and parts here have norms"):
        configs.autoencoder_settings(config, about)


def test_narrow_norms_have_the_groups_that_are_told() -> None:
    """Ours would have fewer where a level is narrow, and no shape would show it."""
    config = load_config("stable-diffusion").part("codecs", "image")
    narrow = dataclasses.replace(config, channels=32, group_channels=2)
    about = {"_class_name": "AutoencoderKL", "norm_num_groups": 32}
    found = configs.autoencoder_settings(narrow, about)
    assert found == {"group_channels": 1}
    assert configs.autoencoder_settings(dataclasses.replace(narrow, **found), about) == {}


@pytest.mark.parametrize("heads", [[4, 8, 16, 8], [8, 4, 4, 8]])
def test_heads_that_no_setting_makes_are_not_said_to_be_set(heads: list[int]) -> None:
    config = load_config("stable-diffusion").part("diffusers", "vision")
    about = {"_class_name": "UNet2DConditionModel", "attention_head_dim": heads}
    for asked in (configs.unet_settings, configs.unet_contradiction):
        with pytest.raises(ConfigError) as caught:
            asked(config, about)
        assert f"has attention_head_dim = {heads}, and" in str(caught.value)
        assert str(caught.value).endswith("such weights are not supported")


def test_pictures_have_the_size_that_a_diffuser_was_trained_with(
    small: Path, tmp_path: Path
) -> None:
    model = _prepared(_with(small, tmp_path, UNET, sample_size=16)).plan.model
    assert model.modalities["image"].latent == (4, 1, 16, 16)
    assert model.modalities["image"].media["size_px"] == 32
    old = _with(small, tmp_path / "old", UNET, sample_size=16, _diffusers_version="0.6.0")
    plan = _prepared(old).plan
    assert plan.model.modalities["image"].latent == (4, 1, 8, 8)
    notes = [note for source in plan.sources for note in source.notes]
    assert [note.partition(": ")[2] for note in notes if note.startswith(str(old / UNET))] == [
        "sample_size = 16 is passed over, which diffusers 0.6.0 wrote and never used"
    ]
    several = _with(small, tmp_path / "other", UNET, sample_size=[8, 12])
    assert _prepared(several).plan.model.modalities["image"].latent == (4, 1, 8, 8)


# --- one file of latent diffusion's training ---


def _file(small: Path, to: Path, **more: torch.Tensor) -> Path:
    save_file(load_file(small.parent / "sd.safetensors") | more, to / "x.safetensors")
    return to / "x.safetensors"


def test_a_measured_factor_of_latents_is_taken(small: Path, tmp_path: Path) -> None:
    source = _file(small, tmp_path, scale_factor=torch.tensor(0.5))
    assert _prepared(source).plan.model.codecs["image"]["scale_factor"] == 0.5
    with pytest.raises(ConfigError, match=r"x\.safetensors: codecs\.image computes with scaling_f"):
        _prepared(source, small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_levels_that_are_those_of_the_schedule_are_seen(
    dtype: torch.dtype, small: Path, tmp_path: Path
) -> None:
    levels = NoiseSchedule.build().alpha_bar[1:].to(dtype)
    assert _prepared(_file(small, tmp_path, alphas_cumprod=levels)).plan.parts
    other = NoiseSchedule.build("linear", beta_end=0.02).alpha_bar[1:].to(dtype)
    with pytest.raises(ConfigError, match=r"1000 noise levels \(alphas_cumprod\) down to"):
        _prepared(_file(small, tmp_path, alphas_cumprod=other))


# --- the codec of sounds ---


@pytest.fixture(scope="module")
def sound() -> MelCodecConfig:
    config: MelCodecConfig = load_config("release").part("codecs", "audio")
    return config


def test_what_describes_a_piece_sets_it_in_its_part(sound: MelCodecConfig) -> None:
    described = configs.AUTOENCODER.inside("autoencoder")
    assert described.settings(sound, {"scaling_factor": 0.5}) == {"autoencoder.scale_factor": 0.5}
    said = described.contradiction(sound, {"scaling_factor": 0.5})
    assert said is not None
    assert "scaling_factor = 0.5, and this model with scale_factor = 0.92" in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampling_rate": 48000}, "sampling_rate = 48000, and .* mel.sample_rate_hz = 16000"),
        ({"upsample_rates": [4, 5, 2, 2, 2]}, r"upsample_rates = \[4, 5, 2, 2, 2\]"),
        ({"resblock_dilation_sizes": [[1, 3, 6]] * 3}, "resblock_dilation_sizes"),
        ({"leaky_relu_slope": 0.2}, "leaky_relu_slope = 0.2"),
        ({"normalize_before": True}, "normalize_before = True"),
    ],
)
def test_a_vocoder_that_computes_otherwise_is_said(
    values: dict[str, Any], message: str, sound: MelCodecConfig
) -> None:
    about = vocoder_config(sound.vocoder) | values

    def said() -> str:
        configs.vocoder_refusal(about)
        return configs.vocoder_contradiction(sound, about) or ""

    with pytest.raises(ConfigError, match=message):
        raise ConfigError(said())


def test_what_is_of_another_library_is_not_of_the_weights(sound: MelCodecConfig) -> None:
    about = {"model_type": "bert", "normalize_before": True, "scaling_factor": 3.0}
    configs.vocoder_refusal(about)
    assert configs.vocoder_contradiction(sound, about) is None
    assert configs.autoencoder_settings(sound.autoencoder, about) == {}
    assert configs.autoencoder_contradiction(sound.autoencoder, {}) is None
