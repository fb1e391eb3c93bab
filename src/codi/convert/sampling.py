"""What the small files beside a diffuser tell of its training: noise levels, prediction, sizes.

The names and the defaults are those of the schedulers of `diffusers`; of one whose defaults are not
known here, a file that leaves something out is refused. How a scheduler steps (spacing, offsets,
thresholds) is the request's here, and not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codi.build import ModalityConfig, ModelConfig, ScheduleConfig
from codi.config import ConfigError
from codi.convert.configs import (
    Told,
    difference,
    of_file,
    require_count,
    require_fixed,
    require_positive,
    same,
    shown,
)
from codi.convert.reading import Checkpoint, read_json

SCHEDULER = Path("scheduler", "scheduler_config.json")
"""Where a folder of a pipeline keeps how it samples."""

BETAS = {"scaled_linear": "scaled_linear", "linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Our kind of schedule -> the library's name for it."""
PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "velocity": "v_prediction"}
"""What our diffuser predicts -> the library's name for it."""

_SNR = "rescale_betas_zero_snr"
_VALUES = {"kind": BETAS, "prediction": PREDICTIONS}
_THEIRS = {
    "kind": "beta_schedule",
    "prediction": "prediction_type",
    "steps": "num_train_timesteps",
    "zero_terminal_snr": _SNR,
}
"""Our settings -> the library's names for them, where it has others."""

_KEYS = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "prediction_type")
_OF_DDPM = ("linear", 0.0001, 0.02, 1000, "epsilon")
_OF_KARRAS = ("linear", 0.00085, 0.012, 1000, "epsilon")
_OF_LATENT_DIFFUSION = ("scaled_linear", 0.00085, 0.012, 1000, "epsilon")
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "DDIMInverseScheduler": _OF_DDPM,
    "DDIMParallelScheduler": _OF_DDPM,
    "DDIMScheduler": _OF_DDPM,
    "DDPMParallelScheduler": _OF_DDPM,
    "DDPMScheduler": _OF_DDPM,
    "DEISMultistepScheduler": _OF_DDPM,
    "DPMSolverMultistepInverseScheduler": _OF_DDPM,
    "DPMSolverMultistepScheduler": _OF_DDPM,
    "DPMSolverSinglestepScheduler": _OF_DDPM,
    "EulerAncestralDiscreteScheduler": _OF_DDPM,
    "EulerDiscreteScheduler": _OF_DDPM,
    "HeunDiscreteScheduler": _OF_KARRAS,
    "KDPM2AncestralDiscreteScheduler": _OF_KARRAS,
    "KDPM2DiscreteScheduler": _OF_KARRAS,
    "LCMScheduler": _OF_LATENT_DIFFUSION,
    "LMSDiscreteScheduler": _OF_DDPM,
    "PNDMScheduler": _OF_DDPM,
    "SASolverScheduler": _OF_DDPM,
    "TCDScheduler": _OF_LATENT_DIFFUSION,
    "UniPCMultistepScheduler": _OF_DDPM,
}
"""Class of a scheduler -> its defaults of `_KEYS` in `diffusers`; those of `_SNR` are False."""

_SCHEDULER_FIXED: dict[str, tuple[Any, ...]] = {_SNR: (False, True)}

_SIZED_SINCE = (0, 9)
_UNUSED_BELOW = 64
"""A smaller `sample_size` in a file of before that version was never used."""


def untold(_checkpoint: Checkpoint) -> list[tuple[Path, Told]]:
    """Return no file: of what is no diffuser, or does not tell."""
    return []


def sampling_beside(checkpoint: Checkpoint) -> list[tuple[Path, Told]]:
    """Return the file of the scheduler of the pipeline that weights lie in, and what it says.

    A `prediction_type` in the diffuser's own `config.json` counts as well, and so does its
    `sample_size`: how large the latents of the pictures are that it was trained with.

    Raises:
        ConfigError: the file is damaged, leaves out what nothing here knows, is of a kind that
            nothing here is like, or the two contradict each other.
    """
    path = checkpoint.path.parent.parent / SCHEDULER
    names = ("prediction_type", "sample_size", "_diffusers_version")
    own = {key: checkpoint.about[key] for key in names if key in checkpoint.about}
    config = checkpoint.path.with_name("config.json")
    if not path.is_file():
        return [(config, own)]
    said, key = read_json(path), "prediction_type"
    if key in own and said.get(key, own[key]) != own[key]:
        raise ConfigError(
            f"{config}: has {key} = {shown(own[key])}, and {path} has {shown(said[key])}; let "
            "both say what the weights were trained for"
        )
    learnt = {key: own[key]} if key in own else {}
    with of_file(path):
        return [(config, own), (path, _completed(learnt | said))]


def _completed(said: Told) -> Told:
    """Return what a scheduler's file says, with the defaults of its class.

    Raises:
        ConfigError: nothing here is like it, or nobody knows what it leaves out.
    """
    kind = str(said.get("_class_name") or "scheduler of no class")
    if "FlowMatch" in kind:
        raise ConfigError(
            f"is of a {kind}, and diffusers here learn noise, data or velocity, not a flow; such "
            "weights are not supported"
        )
    if said.get("trained_betas") is not None:
        raise ConfigError(
            "has trained_betas, and schedules here are made from beta_start and beta_end; such "
            "weights are not supported"
        )
    require_fixed(said, _SCHEDULER_FIXED, "a schedule")
    if kind in _DEFAULTS:
        return dict(zip(_KEYS, _DEFAULTS[kind], strict=True)) | {_SNR: False} | dict(said)
    unused = ("beta_start", "beta_end") if said.get("beta_schedule") == BETAS["cosine"] else ()
    for key in _KEYS:
        if key not in said and key not in unused:
            raise ConfigError(
                f"has no {key}, and what a {kind} has then is not known here; add the {key} that "
                "the weights were trained with"
            )
    return said


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
        side = None if passed_over(about) else about.get("sample_size")
        modalities[name] = _of_size(entry, side)
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


def passed_over(about: Told) -> str | None:
    """Return which `sample_size` tells nothing, and why, or None.

    Scripts that converted weights wrote a number of the training's own configuration, which the
    pipelines of `diffusers` replace by 64 in files of that age, too.
    """
    side, version = about.get("sample_size"), str(about.get("_diffusers_version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    since = _SIZED_SINCE if found is None else (int(found[1]), int(found[2]))
    if since >= _SIZED_SINCE or not isinstance(side, int) or side >= _UNUSED_BELOW:
        return None
    return f"sample_size = {side} is passed over, which diffusers {version} wrote and never used"


def _of_size(entry: ModalityConfig, side: Any) -> ModalityConfig:
    """Return a stream of pictures whose latents have another side, where it is one number."""
    now = entry.latent[-1]
    if type(side) is not int or side < 1 or side == now or "size_px" not in entry.media:
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
        said = difference(vars(model.modalities[name]), prediction, _THEIRS, _VALUES)
        if said is not None:
            return f"of {name} {said}"
    return difference(vars(model.schedule), told, _THEIRS, _VALUES)


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
    """Return what a file tells, by our names.

    Raises:
        ConfigError: it is damaged, or of a kind that is not known here.
    """
    found: dict[str, Any] = {}
    for ours, values in _VALUES.items():
        key, known = _THEIRS[ours], {theirs: own for own, theirs in values.items()}
        if key in about:
            if not isinstance(about[key], str) or about[key] not in known:
                raise ConfigError(
                    f"has {key} = {about[key]!r}, and here are only {', '.join(known)}; such "
                    "weights are not supported"
                )
            found[ours] = known[about[key]]
    for ours in ("steps", "zero_terminal_snr"):
        if _THEIRS[ours] in about:
            found[ours] = about[_THEIRS[ours]]
    if "steps" in found:
        require_count(_THEIRS["steps"], found["steps"])
    if "beta_start" in about and found.get("kind") != "cosine":  # which has no use for them
        found |= {key: require_positive(key, about[key]) for key in ("beta_start", "beta_end")}
    return found
