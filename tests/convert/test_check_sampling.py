"""Schedules and sampling against the numbers of the released code, and against its formulas."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from codi.config import ConfigError
from codi.convert import check_sampling
from codi.convert.check_sampling import CHECKS, released_timesteps, stated_schedule
from codi.convert.check_unets import as_ours, diffuser_config, filled_diffuser, joint_model
from codi.convert.check_unets import mixed as mixed_contexts
from codi.convert.golden import Golden
from codi.convert.layouts import CHECKS as ALL
from codi.convert.unets import SCHEDULE_BUFFERS, schedule_buffers
from codi.convert.verifying import verify
from codi.diffusion import NoiseSchedule
from tests.released import GOLDENS, needs_goldens

SAMPLED = {"out_traj", "out_pred_x0", "out_final"}


def _golden(folder: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Golden:
    listed: dict[str, Any] = {
        "tensors": {name: [] for name in tensors if not name.startswith("w.")}
    }
    (folder / "mine.json").write_text(json.dumps(listed | dict(about)), encoding="utf-8")
    save_file({name: x.clone() for name, x in tensors.items()}, folder / "mine.safetensors")
    return Golden(folder / "mine.json")


def _verdicts(golden: Golden) -> dict[str, str]:
    return {line.tensor: line.verdict for line in verify(golden, CHECKS)}


@needs_goldens
@pytest.mark.parametrize("name", ["i_ddim10_cfg_image", "i2_schedule"])
def test_goldens_are_met(name: str) -> None:
    found = _verdicts(Golden(GOLDENS / f"{name}.json"))
    assert set(found.values()) == {"pass"}
    assert found.keys() >= SAMPLED or set(found) == {"betas", "alphas_cumprod"}


@needs_goldens
def test_the_skips_of_a_trajectory_may_be_the_networks_own(tmp_path: Path) -> None:
    theirs = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    made = check_sampling._sampled(theirs, "own", "standard")
    standard = {name: made[name] for name in SAMPLED & theirs.tensors.keys()}
    assert any((theirs[name] - x).abs().max() > 0.1 for name, x in standard.items())
    golden = _golden(tmp_path, theirs.about, theirs.tensors | standard)
    assert set(_verdicts(golden).values()) == {"pass"}


def test_the_words_of_the_released_configuration_are_known(tmp_path: Path) -> None:
    told = {"beta_linear_start": 0.001, "beta_linear_end": 0.02, "timesteps": 50}
    wanted = schedule_buffers(NoiseSchedule.build("scaled_linear", 50, 0.001, 0.02))
    golden = _golden(tmp_path, told, {"betas": wanted["betas"]})
    assert _verdicts(golden) == {"betas": "pass"}


@needs_goldens
def test_only_goldens_of_sampling_are_recognised() -> None:
    kinds = {
        p.stem: [c for c in ALL if c.recognises(Golden(p).about)] for p in GOLDENS.glob("*.json")
    }
    mine = {name for name, found in kinds.items() if any(check in CHECKS for check in found)}
    assert mine == {"i_ddim10_cfg_image", "i2_schedule"}
    assert all(len(found) <= 1 for found in kinds.values())


# --- schedules ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("names", [SCHEDULE_BUFFERS, *((name,) for name in SCHEDULE_BUFFERS)])
def test_every_buffer_is_made_by_its_formula(
    names: tuple[str, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    beta = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64) ** 2
    level = torch.cumprod(1 - beta, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), level[:-1]])
    variance = beta * (1 - before) / (1 - level)
    formulas = {
        "betas": beta,
        "alphas_cumprod": level,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": level**0.5,
        "sqrt_one_minus_alphas_cumprod": (1 - level) ** 0.5,
        "log_one_minus_alphas_cumprod": torch.log(1 - level),
        "sqrt_recip_alphas_cumprod": (1 / level) ** 0.5,
        "sqrt_recipm1_alphas_cumprod": (1 / level - 1) ** 0.5,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.log(variance.clamp(min=1e-20)),
        "posterior_mean_coef1": beta * before**0.5 / (1 - level),
        "posterior_mean_coef2": (1 - before) * (1 - beta) ** 0.5 / (1 - level),
    }
    golden = _golden(tmp_path, {}, {name: formulas[name].to(dtype) for name in names})
    lines = list(verify(golden, CHECKS))
    assert {line.tensor: line.verdict for line in lines} == dict.fromkeys(names, "pass")
    if dtype == torch.float64:
        assert all(line.relative is not None and line.relative < 1e-11 for line in lines)


@pytest.mark.parametrize(
    ("about", "settings"),
    [
        ({}, {}),
        ({"betas": "torch.linspace(sqrt(.00085),sqrt(.012),1000,float64)**2"}, {}),
        (
            {"betas": "torch.linspace(math.sqrt(1e-3), math.sqrt(2e-2), 500, float64)**2"},
            {"beta_start": 1e-3, "beta_end": 2e-2, "steps": 500},
        ),
        (
            {"betas": "np.linspace(0.0015**0.5, 0.0195 ** .5, 1000)**2"},
            {"beta_start": 0.0015, "beta_end": 0.0195},
        ),
        (
            {"betas": "torch.linspace(1e-4,.02,1000,float64)", "beta_schedule": "linear"},
            {"kind": "linear", "beta_start": 1e-4, "beta_end": 2e-2},
        ),
        (
            {"linear_start": 0.0015, "linear_end": 0.0195, "beta_schedule": "linear"},
            {"beta_start": 0.0015, "beta_end": 0.0195},
        ),
        (
            {"config": {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02}},
            {"kind": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        ),
        ({"beta_schedule": "cosine", "timesteps": 300}, {"kind": "cosine", "steps": 300}),
    ],
)
def test_the_schedule_is_the_one_that_is_stated(
    about: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    level = NoiseSchedule.build(**settings).alpha_bar
    golden = _golden(tmp_path, about, {"alphas_cumprod": level[1:]})
    assert torch.equal(stated_schedule(golden).alpha_bar, level)
    assert _verdicts(golden) == {"alphas_cumprod": "pass"}


def test_what_follows_from_a_schedule_may_be_called_an_output(tmp_path: Path) -> None:
    schedule = NoiseSchedule.build(steps=400)
    tensors = {f"out_{name}": value for name, value in schedule_buffers(schedule).items()}
    tensors["out_ddim_timesteps"] = torch.arange(0, 400, 20) + 1
    found = _verdicts(_golden(tmp_path, {"steps": 20}, tensors))
    assert found == dict.fromkeys(tensors, "pass")
    alone = {"out_betas": tensors["out_betas"] * 1.01}  # its length is the schedule's
    assert _verdicts(_golden(tmp_path, {}, alone)) == {"out_betas": "fail"}


def test_a_schedule_that_is_not_known_is_named(tmp_path: Path) -> None:
    golden = _golden(tmp_path, {"beta_schedule": "sqrt"}, {"betas": torch.ones(3)})
    with pytest.raises(
        ConfigError, match=r"mine\.json: beta_schedule = 'sqrt'; known here: linear"
    ):
        stated_schedule(golden)


def test_other_tensors_beside_a_schedule_are_told(tmp_path: Path) -> None:
    buffers = schedule_buffers(NoiseSchedule.build()) | {"snr": torch.ones(1000)}
    lines = list(verify(_golden(tmp_path, {}, buffers), CHECKS))
    assert [line.tensor for line in lines if line.verdict != "pass"] == ["snr"]
    assert max(line.exit_code for line in lines) == 0


# --- steps ---


@pytest.mark.parametrize("count", [7, 10, 12, 15, 20, 30, 50])
def test_the_released_sampler_takes_all_steps_of_its_stride(count: int) -> None:
    schedule = NoiseSchedule.build()
    theirs = [t + 1 for t in range(0, 1000, 1000 // count)]
    found = released_timesteps(schedule, count)
    assert found == [*(t + 1 for t in reversed(theirs)), 1]
    assert found[-count - 1 :] == schedule.timesteps(count, "ldm")  # which leaves the surplus out


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_the_parameters_of_ddim_are_made_without_a_network(eta: float, tmp_path: Path) -> None:
    level = NoiseSchedule.build().alpha_bar[1:]
    steps = torch.arange(0, 1000, 33) + 1
    now, before = level[steps], torch.cat([level[:1], level[steps[:-1]]])
    given = {
        "ddim_timesteps": steps,
        "ddim_alphas": now.float(),
        "ddim_alphas_prev": before,
        "ddim_sigmas": eta * torch.sqrt((1 - before) / (1 - now) * (1 - now / before)),
        "ddim_sqrt_one_minus_alphas": (1 - now).sqrt(),
    }
    golden = _golden(tmp_path, {"steps": 30, "eta": eta}, given)
    assert _verdicts(golden) == dict.fromkeys(given, "pass")
    assert len(steps) == 31


# --- sampling ---


Streams = dict[str, Tensor]


def _by_the_releases_formulas(
    about: Mapping[str, Any],
    starts: Streams,
    noise: Streams,
    predict: Callable[[Streams, Tensor], Streams],
) -> dict[str, Streams]:
    """Return what ddim/ddim_vd.py computes, step by step, of the network `predict`.

    That is given doubled latents, first without prompts, then with them.
    """
    level = NoiseSchedule.build().alpha_bar[1:]
    steps = [t + 1 for t in range(0, 1000, 1000 // about["steps"])]
    x, along = dict(starts), [starts]
    for i in reversed(range(len(steps))):
        move = len(along) - 1
        t = torch.full((2 * len(next(iter(x.values()))),), steps[i] + 1)
        made = predict({name: torch.cat([one, one]) for name, one in x.items()}, t)
        a, b = float(level[steps[i]]), float(level[steps[i - 1] if i else 0])
        sigma = about.get("eta", 0.0) * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        for name, one in x.items():
            without, with_prompt = made[name].chunk(2)
            e = without + about["scale"] * (with_prompt - without)
            x0 = (one - math.sqrt(1 - a) * e) / math.sqrt(a)
            x[name] = math.sqrt(b) * x0 + math.sqrt(1 - b - sigma**2) * e
            x[name] += sigma * noise[name][move] if sigma else 0.0
        along.append(dict(x))
    return {"traj": {n: torch.stack([x[n] for x in along[1:]]) for n in starts}, "final": x}


def _contexts(golden: Golden) -> Tensor:
    """Return the mixtures of the prompts, (2B, L, D), first the empty ones."""
    weights = golden.about.get("mix_weight") or {"text": 1.0}
    parts = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    return torch.cat(
        [
            sum((golden[f"{kind}_{name}"] * part for name, part in parts.items()), torch.zeros(()))
            for kind in ("uncond", "cond")
        ]
    )


@needs_goldens
@pytest.mark.parametrize(("count", "eta"), [(12, 0.0), (7, 1.0)])
@torch.no_grad()
def test_any_number_of_steps_is_the_released_samplers(
    count: int, eta: float, tmp_path: Path
) -> None:
    source = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    source.about.update(steps=count, eta=eta)
    moves = len(range(0, 1000, 1000 // count))
    assert moves == count + 1
    noise = torch.randn(moves, *source["x_T"].shape)
    kept = {k: v for k, v in source.tensors.items() if not k.startswith(("out", "ddim"))}
    diffuser = filled_diffuser(source, diffuser_config(source.about["config"]), source.weights())
    made = _by_the_releases_formulas(
        source.about,
        {"": source["x_T"]},
        {"": noise},
        lambda z, t: {"": diffuser(z[""][:, :, None], t, _contexts(source))[:, :, 0]},
    )
    kept |= {f"out_{what}": streams[""] for what, streams in made.items()}
    about = {key: value for key, value in source.about.items() if key != "tensors"}
    golden = _golden(tmp_path, about, kept | ({"noise": noise} if eta else {}))
    assert _verdicts(golden) == {"out_traj": "pass", "out_final": "pass"}


JOINT = "e_joint_video_audio"


def _joint_golden(folder: Path, eta: float, ending: str, name: str) -> tuple[Golden, Streams]:
    """Make a golden of ten joint steps by the release's formulas, of the weights of another.

    Streams listen to one another, and the skips are the network's own.
    """
    source = Golden(GOLDENS / f"{JOINT}.json")
    starts = {stream: source[f"x_{stream}"] for stream in ("video", "audio")}
    codi = joint_model(source, starts, "others", "standard")
    noise = {stream: torch.randn(10, *x.shape) for stream, x in starts.items()}
    contexts = {"cond_text": source["context"], "uncond_text": torch.randn(2, 1, 64)}
    told = {"steps": 10, "scale": 3.0, "eta": eta, "config": source.about["config"]}
    both = torch.cat([contexts["uncond_text"], contexts["cond_text"]])

    def predict(z: Streams, t: Tensor) -> Streams:
        made = codi({n: as_ours(x) for n, x in z.items()}, dict.fromkeys(z, t), both)
        return {n: made[n].reshape(x.shape) for n, x in z.items()}

    made = _by_the_releases_formulas(told, starts, noise, predict)
    inputs = {name.format(stream): x for stream, x in starts.items()} | contexts
    if eta:
        inputs |= {f"noise_{stream}": x for stream, x in noise.items()}
    outputs = {
        f"out_{what}_{stream}{ending}": x
        for what, streams in made.items()
        for stream, x in streams.items()
    }
    for beside in GOLDENS.glob("e_*"):
        shutil.copyfile(beside, folder / beside.name)
    told["what"] = f"ten steps together, weights in {JOINT} and e_joint_weights_image"
    return _golden(folder, told, inputs | outputs), outputs


@needs_goldens
@pytest.mark.parametrize(("eta", "name"), [(0.0, "x_T_{}"), (1.0, "x_{}")])
@torch.no_grad()
def test_streams_are_sampled_together(eta: float, name: str, tmp_path: Path) -> None:
    golden, outputs = _joint_golden(tmp_path, eta, "_swapped_unaliased", name)
    assert [check for check in ALL if check.recognises(golden.about)] == [CHECKS[0]]
    assert _verdicts(golden) == dict.fromkeys(outputs, "pass")


@needs_goldens
@torch.no_grad()
def test_streams_that_hear_only_themselves_are_not_those_that_hear_each_other(
    tmp_path: Path,
) -> None:
    golden, outputs = _joint_golden(tmp_path, 0.0, "", "x_T_{}")
    assert _verdicts(golden) == dict.fromkeys(outputs, "fail")


@needs_goldens
def test_streams_without_noise_to_start_from_are_told(tmp_path: Path) -> None:
    about = {"steps": 10, "scale": 3.0, "config": {"unet_audio": {}}}
    golden = _golden(tmp_path, about, {"cond_text": torch.zeros(1), "out_final": torch.ones(2)})
    (line,) = verify(golden, CHECKS)
    assert line.verdict == "unusable"
    assert "has no noise to start from; add x_T_<stream>" in line.note


@needs_goldens
@pytest.mark.parametrize("named", [False, True])
def test_one_stream_in_the_joint_form_needs_no_name(named: bool, tmp_path: Path) -> None:
    source = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    tensors = {
        name.replace("w.", "w.unet_image.", 1) if name.startswith("w.") else name: value
        for name, value in source.tensors.items()
    }
    outputs = {f"{name}_image" if named else name for name in SAMPLED & tensors.keys()}
    if named:
        tensors |= {f"{name}_image": tensors.pop(name) for name in SAMPLED & tensors.keys()}
    about = source.about | {"config": {"unet_image": source.about["config"]}}
    about["tensors"] = [name for name in tensors if not name.startswith("w.")]
    found = _verdicts(_golden(tmp_path, about, tensors))
    assert set(found.values()) == {"pass"}
    assert found.keys() >= outputs


@needs_goldens
def test_one_noise_for_several_networks_is_told(tmp_path: Path) -> None:
    about = {"steps": 10, "scale": 3.0, "config": {"unet_audio": {}, "unet_image": {}}}
    tensors = {"x_T": torch.zeros(1), "cond_text": torch.zeros(1), "out_final": torch.ones(2)}
    (line,) = verify(_golden(tmp_path, about, tensors), CHECKS)
    assert line.verdict == "unusable"
    assert "has no noise to start from; add x_T_<stream>" in line.note


@needs_goldens
def test_one_context_needs_no_name(tmp_path: Path) -> None:
    source = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    kept = {k: v for k, v in source.tensors.items() if not k.startswith(("cond", "uncond"))}
    mixed = {k: mixed_contexts(source, k) for k in ("cond", "uncond")}
    about = {key: value for key, value in source.about.items() if key != "tensors"}
    assert set(_verdicts(_golden(tmp_path, about, kept | mixed)).values()) == {"pass"}
    [*_, line] = verify(_golden(tmp_path, about, kept | {"cond": mixed["cond"]}), CHECKS)
    assert "has no context uncond, nor uncond_<modality>; add it" in line.note


def test_what_the_loss_needs_of_a_schedule_is_checked_too(tmp_path: Path) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    level = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), level[:-1]])
    variance = betas * (1 - before) / (1 - level)
    weights = betas**2 / (2 * variance * (1 - betas) * (1 - level))
    weights[0] = weights[1]
    tensors = {"betas": betas, "alphas": 1 - betas, "lvlb_weights": weights.float()}
    tensors["logvar"] = torch.zeros(1000)
    assert _verdicts(_golden(tmp_path, {}, tensors)) == dict.fromkeys(tensors, "pass")


@needs_goldens
def test_noise_that_is_not_kept_is_asked_for(tmp_path: Path) -> None:
    theirs = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    golden = _golden(tmp_path, theirs.about | {"eta": 0.5}, theirs.tensors)
    (line,) = verify(golden, CHECKS)
    assert line.verdict == "unusable"
    assert "eta = 0.5 and no tensor 'noise'" in line.note


@needs_goldens
def test_without_guidance_no_empty_prompt_is_needed(tmp_path: Path) -> None:
    theirs = Golden(GOLDENS / "i_ddim10_cfg_image.json")
    about = theirs.about | {"scale": 1.0}
    made = check_sampling._sampled(_golden(tmp_path, about, theirs.tensors), "own", "aliased")
    tensors = {**theirs.tensors, **{name: made[name] for name in SAMPLED}}
    kept = {name: x for name, x in tensors.items() if not name.startswith("uncond")}
    about["tensors"] = [name for name in kept if not name.startswith("w.")]
    assert set(_verdicts(_golden(tmp_path, about, kept)).values()) == {"pass"}
    (line,) = verify(_golden(tmp_path, about | {"scale": 2.0}, kept), CHECKS)
    assert "has no context uncond" in line.note
