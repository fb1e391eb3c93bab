"""What the small files beside weights tell of a computation, where shapes do not show it.

The names and the defaults are those of `diffusers` and of SpeechT5's vocoder in `transformers`;
what a file leaves out has the library's default. Of the keys below, a value is one that our part
can be set to (`*_settings`), or one of those that it has fixed (`*_refusal`). Keys that change
nothing here (dropout, precision, names of files) are not looked at. CLIP's and CLAP's files are
read in `codi.convert.encoders`, how a diffuser samples in `codi.convert.sampling`. It opens no
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.mel import MelCodecConfig
from codi.codecs.vocoder import SLOPE
from codi.config import ConfigError
from codi.convert.reading import Checkpoint
from codi.nn.conv import group_norm
from codi.unets.unet import UNetConfig

Told = Mapping[str, Any]
"""Contents of a `config.json`, or of what stands for it."""

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

_THEIRS = {
    "dilations": "resblock_dilation_sizes",
    "groups": "norm_num_groups",
    "heads": "attention_head_dim",
    "mel.sample_rate_hz": "sampling_rate",
    "scale_factor": "scaling_factor",
    "upsample": "upsample_rates",
}
"""Our settings -> the libraries' names for them, where they have others."""

# --- files and settings side by side ---


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


def difference(
    ours: Mapping[str, Any],
    told: Mapping[str, Any],
    theirs: Mapping[str, str],
    values: Mapping[str, Mapping[Any, str]] | None = None,
    place: str = "",
) -> str | None:
    """Return the first of our settings that a file tells otherwise, or None.

    Args:
        ours: name of a setting -> its value here.
        told: name of a setting -> its value by the file.
        theirs: our name -> the library's, where it has another one.
        values: name of a setting -> our values of it -> the library's.
        place: file that told it, where it is not the one that the message is of.

    >>> difference({"heads": 8}, {"heads": 4}, {"heads": "n_head"})
    'computes with n_head = 4, and this model with heads = 8; set it so in the model'
    """
    for name, value in told.items():
        if not same(ours[name], value):
            said = values[name][value] if values and name in values else value
            return (
                f"computes with {theirs.get(name, name)} = {shown(said)}{_within(place)}, and this "
                f"model with {name} = {shown(ours[name])}; set it so in the model"
            )
    return None


def shown(value: Any) -> str:
    """Return a value as a message shows it: a tuple as the list that files have.

    >>> shown((1, 2)), shown("gelu")
    ('[1, 2]', "'gelu'")
    """
    return repr(list(value) if isinstance(value, tuple) else value)


def _within(place: str) -> str:
    return f" (in {place})" if place else ""


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


def require_fixed(
    about: Told,
    fixed: Mapping[str, Sequence[Any]],
    what: str,
    place: str = "",
    mend: str = "such weights are not supported",
) -> None:
    """Check the keys whose values our part cannot have otherwise.

    Args:
        about: contents of the file.
        fixed: key -> the values that our part computes with, first the library's default; where
            the file has a list, each layer's is one of them.
        what: our part, for people.
        place: file that told it, where it is not the one that the message is of.
        mend: what to do, for people.

    Raises:
        ConfigError: one has another value.
    """
    for key, known in fixed.items():
        if key not in about:  # the library's default
            continue
        values = about[key]
        for value in values if isinstance(values, list | tuple) else [values]:
            if not any(same(value, one) for one in known):
                others = " or ".join(dict.fromkeys(shown(one) for one in known[:2]))
                raise ConfigError(
                    f"has {key} = {shown(values)}{_within(place)}, and {what} here computes with "
                    f"{others} only; {mend}"
                )


def require_count(key: str, value: Any, of: Any = None) -> int:
    """Return a value that counts something.

    Args:
        key: its name in the file.
        value: what the file has for it.
        of: all that the file has for it, where that is a list.

    Raises:
        ConfigError: it is no whole number from 1 up.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _damaged(key, value if of is None else of, "whole numbers from 1 up")
    return value


def require_positive(key: str, value: Any) -> float:
    """Return a value that is a factor, or a variance.

    Raises:
        ConfigError: it is no finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _damaged(key, value, "finite numbers above 0")
    return value


def _damaged(key: str, value: Any, right: str) -> ConfigError:
    return ConfigError(
        f"is damaged ({key} = {shown(value)}, where only {right} have a meaning); fetch it again"
    )


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Begin what is said of a file's contents with the file's name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


# --- a diffuser ---


def unet_refusal(about: Told) -> None:
    """Check that a `UNet2DConditionModel` computes as our UNet can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if _is_of(about, _UNET_CLASS):
        require_fixed(about, _UNET_FIXED, "the diffuser")


def unet_settings(config: UNetConfig, about: Told) -> dict[str, Any]:
    """Return the settings of a UNet that its `config.json` tells otherwise.

    Those are the heads of its attention and the groups of its norms; None stands for none.

    Raises:
        ConfigError: it is damaged, or its heads are such as no setting makes.
    """
    if not _is_of(about, _UNET_CLASS):
        return {}
    heads = _told_heads(config, about)
    found = {} if heads == _own_heads(config) else _heads_setting(config, heads)
    return found | _groups(config, about)


def unet_contradiction(config: UNetConfig, about: Told) -> str | None:
    """Return what a UNet's `config.json` says otherwise than our configuration, or None.

    Raises:
        ConfigError: as `unet_settings`.
    """
    if not _is_of(about, _UNET_CLASS):
        return None
    ours, told = _own_heads(config), _told_heads(config, about)
    alike = len(set(ours)) == len(set(told)) == 1
    heads = {"heads": told[0] if alike else told}
    own = {"heads": ours[0] if alike else ours, "groups": config.groups}
    own["group_channels"] = config.group_channels
    return difference(own, heads | _groups(config, about), _THEIRS)


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
        ConfigError: they are of another number of levels, no numbers of heads, or such as no
            setting makes.
    """
    key = _heads_key(about)
    heads = about.get(key, 8)
    levels = heads if isinstance(heads, list) else [heads] * len(config.multipliers)
    if len(levels) != len(config.multipliers):
        raise ConfigError(
            f"has {key} = {shown(heads)}, and the diffuser has {len(config.multipliers)} levels; "
            "choose the model of that size with --model"
        )
    counts = [require_count(key, n, heads) for n in levels]
    attending = [n for n, attends in zip(counts, config.attention, strict=True) if attends]
    found = attending + counts[-1:]
    widths = _attending_widths(config)
    for n, width in zip(found, widths, strict=True):
        if width % n:
            raise _undivided(key, heads, width)
    each = {width // n for n, width in zip(found, widths, strict=True)}
    if found != _own_heads(config) and len(set(found)) > 1 and len(each) > 1:
        raise ConfigError(
            f"has {key} = {shown(heads)}, and the diffuser here has as many heads, or heads as "
            "wide, at every level; such weights are not supported"
        )
    return found


def _undivided(key: str, value: Any, width: int) -> ConfigError:
    return ConfigError(
        f"has {key} = {shown(value)}, into which the {width} channels of a level here cannot be "
        "divided; choose the model of that size with --model, or, if it is damaged, fetch it again"
    )


def _heads_key(about: Told) -> str:
    # The second name is older than its meaning: it is the number of heads.
    told = about.get("num_attention_heads") is not None
    return "num_attention_heads" if told else "attention_head_dim"


def _heads_setting(config: UNetConfig, heads: list[int]) -> dict[str, Any]:
    """Return the settings that make so many heads at the levels that attend and in the middle."""
    if len(set(heads)) == 1:
        return {"heads": heads[0], "head_channels": None}
    return {"heads": None, "head_channels": _attending_widths(config)[0] // heads[0]}


def _groups(config: UNetConfig | AutoencoderKLConfig, about: Told) -> dict[str, Any]:
    """Return the groups of norms, where they are told otherwise.

    Raises:
        ConfigError: no norm has so many.
    """
    key, widths = "norm_num_groups", _widths(config)
    if about.get(key, 32) is None:
        raise ConfigError(f"has {key} = None, and parts here have norms; it is not supported")
    told = require_count(key, about.get(key, 32))
    made = {
        group_norm(width, config.groups, group_channels=config.group_channels).num_groups
        for width in widths
    }
    if made == {told}:
        return {}
    for width in widths:
        if width % told:  # which our norms, unlike the library's, would round down
            raise _undivided(key, told, width)
    found = {} if told == config.groups else {"groups": told}
    if any(width // told < config.group_channels for width in widths):
        found["group_channels"] = 1  # as in the library
    return found


# --- codecs ---


def autoencoder_refusal(about: Told) -> None:
    """Check that an `AutoencoderKL` computes as our autoencoder can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if _is_of(about, _AUTOENCODER_CLASS):
        require_fixed(about, _AUTOENCODER_FIXED, "the autoencoder")


def autoencoder_settings(config: AutoencoderKLConfig, about: Told) -> dict[str, Any]:
    """Return the settings of an autoencoder that its `config.json` tells otherwise.

    Raises:
        ConfigError: it is damaged.
    """
    if not _is_of(about, _AUTOENCODER_CLASS):
        return {}
    return factor_settings(config, {"scaling_factor": 0.18215, **about}) | _groups(config, about)


def factor_settings(config: AutoencoderKLConfig, about: Told) -> dict[str, Any]:
    """Return the factor of latents of an autoencoder, where a file tells it and tells another.

    Raises:
        ConfigError: it is damaged.
    """
    key = "scaling_factor"
    ours = 1.0 if config.scale_factor is None else config.scale_factor
    if key not in about or same(ours, require_positive(key, about[key])):
        return {}
    return {"scale_factor": about[key]}


def factor_contradiction(config: AutoencoderKLConfig, about: Told) -> str | None:
    """Return what a file says of the factor of latents otherwise than ours, or None."""
    return difference(vars(config), factor_settings(config, about), _THEIRS)


def autoencoder_contradiction(config: AutoencoderKLConfig, about: Told) -> str | None:
    """Return what an autoencoder's `config.json` says otherwise than our configuration, or None."""
    return difference(vars(config), autoencoder_settings(config, about), _THEIRS)


def vocoder_refusal(about: Told) -> None:
    """Check that a `SpeechT5HifiGan` computes as our vocoder can.

    Raises:
        ConfigError: it does not; names the key and what is supported.
    """
    if not _is_vocoder(about):
        return
    require_fixed(about, _VOCODER_FIXED, "the vocoder")
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
    told_by_ours = {name: told[key] for name, key in zip(ours, keys, strict=True)}
    return difference(ours, told_by_ours, _THEIRS)


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


# --- all that is asked of such a file ---


def _computable(_about: Told) -> None:
    """Refuse nothing."""


def _unchanged(_config: Any, _about: Told) -> dict[str, Any]:
    return {}


def _agreed(_config: Any, _about: Told) -> str | None:
    return None


@dataclass(frozen=True)
class Description:
    """What a small file beside weights is asked for; by default, nothing.

    Attributes:
        refusal: contents of the file -> raises where no part of ours computes so.
        settings: configuration of our whole part, contents -> settings of it (dotted; None is to
            be left out) that are told otherwise, which a model that is not chosen yet takes.
        contradiction: configuration of our whole part, contents -> what they say otherwise, where
            shapes do not show it; None where they agree.
        told: file of weights -> the small file, and its contents.
    """

    refusal: Callable[[Told], None] = _computable
    settings: Callable[[Any, Told], dict[str, Any]] = _unchanged
    contradiction: Callable[[Any, Told], str | None] = _agreed
    told: Callable[[Checkpoint], tuple[Path, Told]] = beside

    def inside(self, name: str) -> Description:
        """Return the same for a part of ours of which the described is the piece `name`."""
        return replace(
            self,
            settings=lambda config, about: {
                f"{name}.{key}": value
                for key, value in self.settings(getattr(config, name), about).items()
            },
            contradiction=lambda config, about: self.contradiction(getattr(config, name), about),
        )


UNDESCRIBED = Description()
UNET = Description(unet_refusal, unet_settings, unet_contradiction)
AUTOENCODER = Description(autoencoder_refusal, autoencoder_settings, autoencoder_contradiction)
TRAINED_AUTOENCODER = Description(
    settings=factor_settings, contradiction=factor_contradiction, told=in_training_file
)
"""An autoencoder, in a file of training that tells nothing but its factor."""
VOCODER = Description(vocoder_refusal, contradiction=vocoder_contradiction)
