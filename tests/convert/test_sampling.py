"""Noise levels, predictions and sizes: whose defaults a file has, and what is not believed."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from codi.build import load_config
from codi.config import ConfigError
from codi.convert import sampling
from codi.convert.reading import Checkpoint
from codi.convert.sampling import (
    passed_over,
    sampled_as_told,
    sampling_beside,
    sampling_contradiction,
)

PART = "diffusers.vision"


def _told(folder: Path, said: dict[str, Any], **own: Any) -> list[dict[str, Any]]:
    """Return what a pipeline's folder tells of a diffuser."""
    path = folder / sampling.SCHEDULER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said))
    checkpoint = Checkpoint(folder / "unet" / "x.safetensors", {}, own)
    return [dict(about) for _path, about in sampling_beside(checkpoint)]


@pytest.mark.parametrize("name", sampling._DEFAULTS)
def test_a_class_has_its_own_defaults(name: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs codi[external]")
    given = inspect.signature(getattr(diffusers, name)).parameters
    _own, told = _told(tmp_path, {"_class_name": name})
    assert told.pop("_class_name") == name
    assert told.pop(sampling._SNR) is False
    assert told == {key: given[key].default for key in sampling._KEYS}
    assert sampling._SNR not in given or given[sampling._SNR].default is False


def test_what_a_distilled_models_scheduler_leaves_out_is_latent_diffusions(tmp_path: Path) -> None:
    model = load_config("stable-diffusion")
    _own, told = _told(tmp_path, {"_class_name": "LCMScheduler"})
    assert sampled_as_told(model, PART, told).schedule == model.schedule
    assert sampling_contradiction(model, PART, told) is None
    _own, told = _told(tmp_path, {"_class_name": "DDIMScheduler"})
    assert sampled_as_told(model, PART, told).schedule.kind == "linear"


WHOLE = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "NewScheduler", None])
@pytest.mark.parametrize("key", WHOLE)
def test_what_a_scheduler_that_is_not_known_leaves_out_is_not_guessed(
    key: str, name: str | None, tmp_path: Path
) -> None:
    named = {} if name is None else {"_class_name": name}
    _own, told = _told(tmp_path, WHOLE | named)
    assert sampling_contradiction(load_config("stable-diffusion"), PART, told) is None
    left = {k: value for k, value in WHOLE.items() if k != key}
    message = rf"scheduler_config\.json: has no {key}, and what a .*{name or 'no class'} has then"
    with pytest.raises(ConfigError, match=message):
        _told(tmp_path, left | named)


def test_a_prediction_of_the_diffusers_own_file_is_no_default(tmp_path: Path) -> None:
    said = {k: value for k, value in WHOLE.items() if k != "prediction_type"}
    _own, told = _told(tmp_path, said | {"_class_name": "X"}, prediction_type="v_prediction")
    assert told["prediction_type"] == "v_prediction"


def test_a_cosine_has_no_use_for_betas(tmp_path: Path) -> None:
    said = {"_class_name": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2"}
    _own, told = _told(tmp_path, said | {"num_train_timesteps": 9, "prediction_type": "sample"})
    sampled = sampled_as_told(load_config("stable-diffusion"), PART, told)
    assert (sampled.schedule.kind, sampled.schedule.steps) == ("cosine", 9)


@pytest.mark.parametrize(
    ("version", "side", "latent"),
    [
        ("0.6.0", 32, 64),  # Stable Diffusion 1 as its first conversions have it
        ("0.8.0.dev0", 32, 64),
        ("0.6.0", 96, 96),
        ("0.9.0.dev0", 32, 32),
        ("0.10.2", 32, 32),
        ("1.0", 32, 32),
        (None, 32, 32),
    ],
)
def test_a_size_that_was_never_used_is_passed_over(
    version: str | None, side: int, latent: int
) -> None:
    model = load_config("stable-diffusion")
    assert model.modalities["image"].latent == (4, 1, 64, 64)
    about: dict[str, Any] = {"sample_size": side}
    about |= {} if version is None else {"_diffusers_version": version}
    sampled = sampled_as_told(model, PART, about).modalities["image"]
    assert sampled.latent == (4, 1, latent, latent)
    assert sampled.media["size_px"] == 8 * latent
    said = passed_over(about)
    assert (said is None) == (latent == side)
    assert said is None or f"sample_size = 32 is passed over, which diffusers {version}" in said
