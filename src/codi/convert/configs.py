"""What the small files beside weights tell of a computation, where shapes do not show it.

The names and the defaults are those of `diffusers` and of SpeechT5's vocoder in `transformers`;
what a file leaves out has the library's default. Of every key that changes what is computed, a
value is one that our part can be set to (`*_settings`), or one of those that it has fixed
(`*_refusal`). Keys that change nothing here (dropout, precision, names of files) are not looked at.
CLIP's and CLAP's files are read in `codi.convert.encoders`. It opens no weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codi.build import ModalityConfig, ModelConfig, ScheduleConfig
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.vocoder import SLOPE
from codi.config import ConfigError
from codi.convert.reading import Checkpoint, read_json
from codi.nn.conv import group_norm
from codi.unets.unet import UNetConfig

Told = Mapping[str, Any]
"""Contents of a `config.json`, or of what stands for it."""

SCHEDULER = Path("scheduler", "scheduler_config.json")
"""Where a folder of a pipeline keeps how it samples."""

_CLOSE = 5e-4
"""How far two numbers may be apart, relatively, that are the same: some are stored in 16 bits."""

_SILU = ("silu", "swish")
_NONE: tuple[Any, ...] = (None, False)

_UNET_CLASS, _AUTOENCODER_CLASS = "UNet2DConditionModel", "AutoencoderKL"
_UNET_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": _SILU,
    "addition_embed_type": _NONE,
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": _NONE,
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": _NONE,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": _NONE,
    "encoder_hid_dim_type": _NONE,
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": _NONE,
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "norm_eps": (1e-5,),
    "num_class_embeds": _NONE,
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": _NONE,
    "time_cond_proj_dim": _NONE,
    "time_embedding_act_fn": _NONE,
    "time_embedding_type": ("positional",),
    "timestep_post_act": _NONE,
    "transformer_layers_per_block": (1,),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": (False,),
}
"""Key -> what our UNet computes; of several, all are the same or each layer may have its own."""

_AUTOENCODER_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": _SILU,
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "latents_mean": _NONE,
    "latents_std": _NONE,
    "shift_factor": (None, 0),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}
_VOCODER_FIXED: dict[str, tuple[Any, ...]] = {"leaky_relu_slope": (SLOPE,)}
_VOCODER_TYPES = ("speecht5_hifigan", "hifigan")
_VOCODER_DEFAULTS: dict[str, Any] = {
    "normalize_before": True,
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "sampling_rate": 16000,
    "upsample_rates": [4, 4, 4, 4],
}

_SCHEDULE_DEFAULTS: dict[str, Any] = {
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
BETAS = {"scaled_linear": "scaled_linear", "linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Our kind of schedule -> the library's name for it."""
PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "velocity": "v_prediction"}
"""What our diffuser predicts -> the library's name for it."""
_NAMES = {"kind": BETAS, "prediction": PREDICTIONS}
"""Our settings whose values are called otherwise in the library."""


_THEIRS = {
    "dilations": "resblock_dilation_sizes",
    "groups": "norm_num_groups",
    "heads": "attention_head_dim",
    "kind": "beta_schedule",
    "mel.sample_rate_hz": "sampling_rate",
    "prediction": "prediction_type",
    "scale_factor": "scaling_factor",
    "steps": "num_train_timesteps",
    "upsample": "upsample_rates",
    "zero_terminal_snr": "rescale_betas_zero_snr",
}
"""Our settings -> the libraries' names for them, where they have others."""


def same(one: Any, other: Any) -> bool:
    """Compare two values of settings, numbers but for their last digits.

    >>> same(0.9228, 0.9227914214134216), same([1, 2], (1, 2)), same(0.13025, 0.18215)
    (True, True, False)
    """
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE)
    return bool(one == other)


def difference(ours: Mapping[str, Any], told: Mapping[str, Any]) -> str | None:
    """Return the first of our settings that a file tells otherwise, or None."""
    for name, value in told.items():
        if not same(ours[name], value):
            theirs = _NAMES[name][value] if name in _NAMES else value
            return (
                f"computes with {_THEIRS.get(name, name)} = {_shown(theirs)}, and this model with "
                f"{name} = {_shown(ours[name])}; set it so in the model"
            )
    return None


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _is_of(about: Told, name: str) -> bool:
    """Say whether a `config.json` is of a class of `diffusers`; it may be of other weights.

    Raises:
        ConfigError: it is of another class.
    """
    kind = about.get("_class_name")
    if kind not in (None, name):
        raise ConfigError(
            f"has _class_name = {kind!r}, and the weights beside it are converted as those of "
            f"{name}; put their own config.json beside them, or none"
        )
    return bool(about) and "model_type" not in about


def _require_fixed(about: Told, fixed: Mapping[str, tuple[Any, ...]], what: str) -> None:
    """Check the keys whose values our part cannot have otherwise.

    Raises:
        ConfigError: one has another value.
    """
    for key, known in fixed.items():
        values = about.get(key, known[0])
        for value in values if isinstance(values, list) else [values]:
            if not any(same(value, one) for one in known):
                others = " or ".join(dict.fromkeys(_shown(one) for one in known[:2]))
                raise ConfigError(
                    f"has {key} = {_shown(values)}, and {what} here computes with {others} only; "
                    "such weights are not supported"
                )


# --- a diffuser ---


def unet_refusal(about: Told) -> None:
    """Check that a `UNet2DConditionModel` computes as our UNet can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if _is_of(about, _UNET_CLASS):
        _require_fixed(about, _UNET_FIXED, "the diffuser")


def unet_settings(config: UNetConfig, about: Told) -> dict[str, Any]:
    """Return the settings of a UNet that its `config.json` tells otherwise.

    Those are the heads of its attention and the groups of its norms; None stands for none.
    """
    if not _is_of(about, _UNET_CLASS):
        return {}
    found: dict[str, Any] = {}
    widths = _attending_widths(config)
    heads = _told_heads(config, about)
    if heads != _own_heads(config):
        if len(set(heads)) == 1:
            found |= {"heads": heads[0], "head_channels": None}
        elif len({width / n for width, n in zip(widths, heads, strict=True)}) == 1:
            found |= {"heads": None, "head_channels": widths[0] // heads[0]}
    return found | _groups(config, about, _widths(config))


def unet_contradiction(config: UNetConfig, about: Told) -> str | None:
    """Return what a UNet's `config.json` says otherwise than our configuration, or None."""
    if not _is_of(about, _UNET_CLASS):
        return None
    ours, told = _own_heads(config), _told_heads(config, about)
    alike = len(set(ours)) == len(set(told)) == 1
    heads = {"heads": told[0] if alike else told}
    return difference({"heads": ours[0] if alike else ours}, heads) or difference(
        {"groups": config.groups}, _groups(config, about, _widths(config))
    )


def _widths(config: UNetConfig | AutoencoderKLConfig) -> list[int]:
    return [config.channels * multiplier for multiplier in config.multipliers]


def _attending_widths(config: UNetConfig) -> list[int]:
    """Return the widths of the levels that attend, and of the middle, which always does."""
    widths = _widths(config)
    return [w for w, attends in zip(widths, config.attention, strict=True) if attends] + widths[-1:]


def _own_heads(config: UNetConfig) -> list[int]:
    return [
        config.heads or width // (config.head_channels or width)
        for width in _attending_widths(config)
    ]


def _told_heads(config: UNetConfig, about: Told) -> list[int]:
    """Return the heads of each level that attends, and of the middle.

    Raises:
        ConfigError: they are of another number of levels.
    """
    key = "num_attention_heads" if about.get("num_attention_heads") else "attention_head_dim"
    # The second name is older than its meaning: it is the number of heads.
    heads = about.get(key) or 8
    levels = heads if isinstance(heads, list) else [heads] * len(config.multipliers)
    if len(levels) != len(config.multipliers) or not all(isinstance(n, int) for n in levels):
        raise ConfigError(
            f"has {key} = {_shown(heads)}, and the diffuser has {len(config.multipliers)} levels; "
            "choose the model of that size with --model"
        )
    attending = [n for n, attends in zip(levels, config.attention, strict=True) if attends]
    return attending + levels[-1:]


def _groups(
    config: UNetConfig | AutoencoderKLConfig, about: Told, widths: list[int]
) -> dict[str, Any]:
    told = about.get("norm_num_groups", config.groups)
    made = {
        group_norm(width, config.groups, group_channels=config.group_channels).num_groups
        for width in widths
    }
    return {} if made == {told} or told == config.groups else {"groups": told}


# --- codecs ---


def autoencoder_refusal(about: Told) -> None:
    """Check that an `AutoencoderKL` computes as our autoencoder can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if _is_of(about, _AUTOENCODER_CLASS):
        _require_fixed(about, _AUTOENCODER_FIXED, "the autoencoder")


def autoencoder_settings(config: AutoencoderKLConfig, about: Told) -> dict[str, Any]:
    """Return the settings of an autoencoder that its `config.json` tells otherwise."""
    if not _is_of(about, _AUTOENCODER_CLASS):
        return {}
    factor = about.get("scaling_factor", 0.18215)
    ours = 1.0 if config.scale_factor is None else config.scale_factor
    found = {} if same(ours, factor) else {"scale_factor": factor}
    return found | _groups(config, about, _widths(config))


def autoencoder_contradiction(config: AutoencoderKLConfig, about: Told) -> str | None:
    """Return what an autoencoder's `config.json` says otherwise than our configuration, or None."""
    return difference(vars(config), autoencoder_settings(config, about))


def mel_autoencoder_settings(config: MelCodecConfig, about: Told) -> dict[str, Any]:
    """Return the settings of the autoencoder in the codec of sounds that are told otherwise."""
    found = autoencoder_settings(config.autoencoder, about)
    return {f"autoencoder.{key}": value for key, value in found.items()}


def mel_autoencoder_contradiction(config: MelCodecConfig, about: Told) -> str | None:
    """Return what the `config.json` of AudioLDM's autoencoder says otherwise, or None."""
    return autoencoder_contradiction(config.autoencoder, about)


def vocoder_refusal(about: Told) -> None:
    """Check that a `SpeechT5HifiGan` computes as our vocoder can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if not _is_vocoder(about):
        return
    _require_fixed(about, _VOCODER_FIXED, "the vocoder")
    if about.get("normalize_before", _VOCODER_DEFAULTS["normalize_before"]):
        raise ConfigError(
            "has normalize_before = True (the library's default), and the vocoder here computes "
            "with False only: it has no statistics of spectrograms; such weights are not supported"
        )


def vocoder_contradiction(config: MelCodecConfig, about: Told) -> str | None:
    """Return what a vocoder's `config.json` says otherwise than the codec of sounds, or None."""
    if not _is_vocoder(about):
        return None
    c, told = config.vocoder, _VOCODER_DEFAULTS | dict(about)
    ours = {
        "upsample": c.upsample,
        "dilations": c.dilations_by_kernel,
        "mel.sample_rate_hz": config.mel.sample_rate_hz,
    }
    keys = ("upsample_rates", "resblock_dilation_sizes", "sampling_rate")
    return difference(ours, {name: told[key] for name, key in zip(ours, keys, strict=True)})


def _is_vocoder(about: Told) -> bool:
    return bool(about) and about.get("model_type", _VOCODER_TYPES[0]) in _VOCODER_TYPES


# --- where it is told ---


def beside(checkpoint: Checkpoint) -> tuple[Path, Told]:
    """Return the `config.json` beside weights, and what it says; nothing where there is none."""
    return checkpoint.path.with_name("config.json"), checkpoint.about


def in_training_file(checkpoint: Checkpoint) -> tuple[Path, Told]:
    """Return a file of latent diffusion's training, and the factor of latents where it keeps one.

    It does where it was measured when training began.
    """
    stored = checkpoint.stored.get("scale_factor")
    if stored is None or math.prod(stored.shape) != 1:
        return checkpoint.path, {}
    return checkpoint.path, {"scaling_factor": stored.read().double().item()}


# --- how it samples ---


def sampling_beside(checkpoint: Checkpoint) -> list[tuple[Path, Told]]:
    """Return the file of the scheduler of the pipeline that weights lie in, and what it says.

    A `prediction_type` in the diffuser's own `config.json` counts as well, and so does its
    `sample_size`: how large the latents of the pictures are that it was trained with.

    Raises:
        ConfigError: the file is damaged, or the two contradict each other.
    """
    path = checkpoint.path.parent.parent / SCHEDULER
    names = ("prediction_type", "sample_size")
    own = {key: checkpoint.about[key] for key in names if key in checkpoint.about}
    config = checkpoint.path.with_name("config.json")
    if not path.is_file():
        return [(config, own)]
    said, key = read_json(path), "prediction_type"
    if key in own and said.get(key, own[key]) != own[key]:
        raise ConfigError(
            f"{config}: has {key} = {_shown(own[key])}, and {path} has {_shown(said[key])}; let "
            "both say what the weights were trained for"
        )
    learnt = {key: own[key]} if key in own else {}
    return [(config, own), (path, _SCHEDULE_DEFAULTS | learnt | said)]


def sampling_in_training_file(checkpoint: Checkpoint) -> list[tuple[Path, Told]]:
    """Return a file of latent diffusion's training, and its noise levels where it keeps them."""
    stored = checkpoint.stored.get("alphas_cumprod")
    if stored is None or len(stored.shape) != 1:
        return []
    return [(checkpoint.path, {"alphas_cumprod": stored.read().double()})]


def sampled_as_told(model: ModelConfig, part: str, about: Told) -> ModelConfig:
    """Return a model with the noise schedule and the predictions that a scheduler's file tells.

    Raises:
        ConfigError: no schedule here is like that.
    """
    told, modalities = _told_sampling(about), dict(model.modalities)
    for name in _streams(model, part):
        entry = modalities[name]
        entry = replace(entry, prediction=told.get("prediction", entry.prediction))
        modalities[name] = _of_size(entry, about.get("sample_size"))
    told.pop("prediction", None)
    changed = {k: v for k, v in told.items() if not same(getattr(model.schedule, k), v)}
    schedule = replace(model.schedule, **changed)
    try:
        schedule.build()
    except (ValueError, TypeError, RuntimeError) as error:  # of numbers that no schedule has
        raise ConfigError(f"is damaged ({error}); fetch it again") from error
    return replace(model, schedule=schedule, modalities=modalities)


def changes_of_sampling(before: ModelConfig, after: ModelConfig) -> Iterator[str]:
    """Return what `sampled_as_told` changed, each as "name = value"."""
    tables: list[tuple[str, Any, Any]] = [("schedule", before.schedule, after.schedule)]
    tables += [(name, m, after.modalities[name]) for name, m in before.modalities.items()]
    for name, one, other in tables:
        for key, value in vars(other).items():
            if value != vars(one)[key]:
                yield f"{name}.{key} = {value}"


def _of_size(entry: ModalityConfig, side: Any) -> ModalityConfig:
    """Return a stream of pictures whose latents have another side, where it is one number."""
    now = entry.latent[-1]
    if not isinstance(side, int) or side < 1 or side == now or "size_px" not in entry.media:
        return entry
    media = entry.media | {"size_px": entry.media["size_px"] // now * side}
    return replace(entry, latent=(*entry.latent[:-2], side, side), media=media)


def sampling_contradiction(model: ModelConfig, part: str, about: Told) -> str | None:
    """Return what a scheduler's file says otherwise than a model does for a diffuser, or None.

    Raises:
        ConfigError: no schedule here is like that.
    """
    if "alphas_cumprod" in about:
        return _other_levels(model.schedule, about["alphas_cumprod"])
    told = _told_sampling(about)
    prediction = {k: told.pop(k) for k in ("prediction",) if k in told}
    for name in _streams(model, part):
        said = difference(vars(model.modalities[name]), prediction)
        if said is not None:
            return f"of {name} {said}"
    return difference(vars(model.schedule), told)


def _other_levels(schedule: ScheduleConfig, levels: torch.Tensor) -> str | None:
    ours = schedule.build().alpha_bar[1:]
    # Files in 16 bits hold them with two digits.
    if levels.shape == ours.shape and torch.allclose(levels, ours, rtol=1e-2, atol=1e-3):
        return None
    return (
        f"has {len(levels)} noise levels (alphas_cumprod) down to {levels[-1].item():.4g}, and "
        f"this model's schedule ({schedule.kind}) has {len(ours)} down to {ours[-1].item():.4g}; "
        "set [schedule] so in the model"
    )


def _streams(model: ModelConfig, part: str) -> list[str]:
    """Return the modalities that a diffuser denoises."""
    return [name for name, m in model.modalities.items() if f"diffusers.{m.diffuser}" == part]


def _told_sampling(about: Told) -> dict[str, Any]:
    """Return what a scheduler's file tells, by our names.

    Raises:
        ConfigError: it is of a kind that is not known here.
    """
    if "FlowMatch" in str(about.get("_class_name", "")):
        raise ConfigError(
            f"is of a {about['_class_name']}, and diffusers here learn noise, data or velocity, "
            "not a flow; such weights are not supported"
        )
    if about.get("trained_betas") is not None:
        raise ConfigError(
            "has trained_betas, and schedules here are made from beta_start and beta_end; such "
            "weights are not supported"
        )
    names = {
        "kind": ("beta_schedule", {theirs: ours for ours, theirs in BETAS.items()}),
        "prediction": ("prediction_type", {theirs: ours for ours, theirs in PREDICTIONS.items()}),
    }
    found: dict[str, Any] = {}
    for ours, (key, known) in names.items():
        if key in about:
            if not isinstance(about[key], str) or about[key] not in known:
                raise ConfigError(
                    f"has {key} = {about[key]!r}, and here are only {', '.join(known)}; such "
                    "weights are not supported"
                )
            found[ours] = known[about[key]]
    for ours, key in (
        ("steps", "num_train_timesteps"),
        ("zero_terminal_snr", "rescale_betas_zero_snr"),
    ):
        if key in about:
            found[ours] = about[key]
    if "beta_start" in about and found.get("kind") != "cosine":  # which has no use for them
        found |= {key: about[key] for key in ("beta_start", "beta_end")}
    return found
