"""Diffusers against the numbers of the released code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codi.config import ConfigError
from codi.convert.check_unets import (
    CHECKS,
    diffuser_config,
    environment_config,
    filled_diffuser,
    stated_config,
)
from codi.convert.golden import Check, Golden
from codi.convert.verifying import verify
from tests.released import GOLDENS, needs_goldens

COVERED = {
    "a_image_unet_step",
    "b_video_unet_step",
    "b2_temporal_block",
    "c_audio_unet_step",
    "d_text_unet_step",
    "e_joint_video_audio",
    "e2_joint_image_text_audio",
    "e3_joint_paper_wiring",
}


def _checks(golden: Golden) -> list[Check]:
    return [check for check in CHECKS if check.recognises(golden.about)]


@needs_goldens
def test_every_golden_of_a_diffuser_is_recognised_by_one_check() -> None:
    found = {path.stem: _checks(Golden(path)) for path in GOLDENS.glob("*.json")}
    assert {name for name, checks in found.items() if checks} == COVERED
    assert all(len(checks) <= 1 for checks in found.values())


@needs_goldens
@pytest.mark.parametrize("name", sorted(COVERED))
def test_our_numbers_are_theirs(name: str) -> None:
    golden = Golden(GOLDENS / f"{name}.json")
    (check,) = _checks(golden)
    made = check.run(golden)
    assert {key for key in golden.tensors if key.startswith(("out", "h_con"))} <= set(made)
    for key, value in made.items():
        assert isinstance(value, torch.Tensor)
        expected = golden[key]
        assert value.shape == expected.shape
        error = (value.double() - expected.double()).abs().max()
        assert error <= check.tolerance * expected.double().std(), key


@needs_goldens
def test_a_wrong_wiring_would_be_noticed() -> None:
    golden = Golden(GOLDENS / "a_image_unet_step.json")
    apart = (golden["out_official"] - golden["out_unaliased"]).abs().max()
    assert apart > 0.5 * golden["out_official"].std()


def _golden(folder: Path, about: dict[str, object]) -> Golden:
    path = folder / "mine.json"
    path.write_text(json.dumps(about), encoding="utf-8")
    return Golden(path)


@pytest.mark.parametrize("config", [None, "words", [1], {}])
def test_what_is_no_diffuser_is_left_to_others(tmp_path: Path, config: object) -> None:
    assert not _checks(_golden(tmp_path, {"what": "a codec", "config": config, "tensors": {}}))


def test_weights_that_are_nowhere_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    about: dict[str, object] = {
        "what": "joint",
        "config": {"unet_audio": {}},
        "tensors": {"x_audio": [], "out_audio": []},
    }
    golden = _golden(tmp_path, about)
    x = torch.zeros(1)
    save_file({"x_audio": x, "out_audio": x.clone()}, tmp_path / "mine.safetensors")
    (check,) = _checks(golden)
    with pytest.raises(ConfigError, match=r"mine\.json: names no file with weights w\.unet_audio"):
        check.run(golden)


def test_a_wiring_needs_the_golden_it_speaks_of(tmp_path: Path) -> None:
    golden = _golden(tmp_path, {"what": "", "tensors": ["out_audio_swapped_aliased"]})
    (check,) = _checks(golden)
    with pytest.raises(ConfigError, match="names no golden with inputs"):
        check.run(golden)


BASE = {"input_channels": 4, "model_channels": 8, "output_channels": 4}


def test_the_released_defaults_hold_where_a_golden_is_silent() -> None:
    config = diffuser_config(BASE | {"channel_mult": [1, 2, 4, 4]})
    assert config == diffuser_config(
        BASE | {"channel_mult": [1, 2, 4, 4], "num_heads": 8, "context_dim": 768}
    )
    assert environment_config(BASE).multipliers == (1, 2, 4)


def test_a_text_diffuser_has_as_many_positions_on_every_level() -> None:
    with pytest.raises(ConfigError, match="equally many positions"):
        diffuser_config(BASE | {"second_dim": [4, 2]})


# --- other names, sizes and switches ---


def _verdicts(golden: Golden) -> dict[str, str]:
    return {line.tensor: line.verdict for line in verify(golden, CHECKS)}


def _copy(folder: Path, *names: str) -> Golden:
    """Copy goldens to a folder, and return the first."""
    for name in names:
        for path in GOLDENS.glob(f"{name}.*"):
            shutil.copyfile(path, folder / path.name)
    return Golden(folder / f"{names[0]}.json")


@needs_goldens
@pytest.mark.parametrize("wiring", ["official", "unaliased"])
def test_an_output_of_a_step_may_say_nothing_of_its_wiring(wiring: str, tmp_path: Path) -> None:
    golden = _copy(tmp_path, "a_image_unet_step")
    golden.about["tensors"] = {"x": [], "t": [], "context": [], "out": []}
    golden.tensors["out"] = golden.tensors[f"out_{wiring}"]
    del golden.tensors["out_official"], golden.tensors["out_unaliased"]
    assert _verdicts(golden) == {"out": "pass"}
    golden.tensors["out"] = golden.tensors["out"] + 0.01
    assert _verdicts(golden) == {"out": "fail"}


@needs_goldens
@pytest.mark.parametrize("cls", ["UNetModel0D_MultiDim", ""])
def test_a_text_diffuser_has_the_released_positions_where_none_are_told(
    cls: str, tmp_path: Path
) -> None:
    golden = _copy(tmp_path, "d_text_unet_step")
    for key in [key for key in golden.about["config"] if key.startswith("second_dim")]:
        del golden.about["config"][key]
    golden.about["cls"] = cls  # its latents are vectors, which says the same
    assert set(_verdicts(golden).values()) == {"pass"}


@needs_goldens
def test_a_temporal_block_has_the_sizes_of_its_weights(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "b2_temporal_block")
    golden.about["config"] = {"dim": 32}
    assert set(_verdicts(golden).values()) == {"pass"}


@needs_goldens
def test_wirings_are_known_without_those_of_the_paper(tmp_path: Path) -> None:
    base = ("e_joint_video_audio", "e_joint_weights_image")
    golden = _copy(tmp_path, "e3_joint_paper_wiring", *base)
    for name in [name for name in golden.tensors if "swapped" in name]:
        del golden.tensors[name]
    golden.about["tensors"] = list(golden.tensors)
    assert _verdicts(golden) == dict.fromkeys(golden.tensors, "pass")
    assert len(golden.tensors) == 2


@needs_goldens
def test_a_joint_golden_may_hold_other_wirings_itself(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "e_joint_video_audio", "e_joint_weights_image")
    added = Golden(GOLDENS / "e3_joint_paper_wiring.json").tensors
    golden.tensors.update(added)
    found = _verdicts(golden)
    assert found.keys() >= added.keys()
    assert set(found.values()) == {"pass"}


@needs_goldens
def test_the_weights_of_a_step_may_lie_elsewhere(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "b_video_unet_step", "a_image_unet_step")
    for name in [name for name in golden.tensors if name.startswith("w.")]:
        del golden.tensors[name]
    assert set(_verdicts(golden).values()) == {"pass"}  # "same weights as golden a"
    golden.about["what"] = "video UNet step"
    [line] = verify(golden, CHECKS)
    assert "names no file with weights w.*" in line.note


@needs_goldens
@torch.no_grad()
def test_a_clip_of_one_frame_is_a_clip_and_no_picture() -> None:
    """The released code tells them by the number of axes: a clip always meets its blocks."""
    golden = Golden(GOLDENS / "b_video_unet_step.json")
    picture, t, context = golden["x"][:, :, 0], golden["t"] + 1, golden["context"]
    made = {}
    for name, latent in {"picture": picture, "clip": picture[:, :, None]}.items():
        config = diffuser_config(stated_config(golden.about["config"], latent))
        diffuser = filled_diffuser(golden, config, golden.weights())
        made[name] = diffuser(picture[:, :, None], t, context)
        longer = diffuser(golden["x"], t, context)
        torch.testing.assert_close(longer, golden["out_official"], atol=1e-4, rtol=0)
    assert (made["clip"] - made["picture"]).abs().max() > 0.1


# --- what goldens may say otherwise ---


def _pass(golden: Golden) -> bool:
    verdicts = {line.verdict for line in verify(golden, CHECKS)}
    return "pass" in verdicts and verdicts <= {"pass", "not checked"}


@needs_goldens
@pytest.mark.parametrize("name", ["a_image_unet_step", "e_joint_video_audio"])
def test_contexts_may_be_mixed_by_their_weights(name: str) -> None:
    golden = Golden(GOLDENS / f"{name}.json")
    context = golden.tensors.pop("context")
    other = torch.randn_like(context)
    golden.tensors["context_text"] = (4 * context - other) / 3
    golden.tensors["context_audio"] = other
    golden.about["mix_weight"] = {"text": 1.5, "audio": 0.5}
    assert _pass(golden)
    golden.about["mix_weight"] = {"text": 0.5}
    assert not _pass(golden)
    golden.about["mix_weight"] = {"text": 1.0, "audio": -1.0}
    (line,) = verify(golden, CHECKS)
    assert "its sum must not be 0" in line.note


@needs_goldens
def test_one_step_may_be_told_for_all_samples() -> None:
    golden = Golden(GOLDENS / "a_image_unet_step.json")
    (check,) = _checks(golden)
    golden.tensors["t"] = golden["t"][:1].expand(2)
    made = check.run(golden)
    golden.tensors.update({n: value for n, value in made.items() if isinstance(value, Tensor)})
    for t in (golden["t"][0], golden["t"][:1]):
        golden.tensors["t"] = t
        assert _pass(golden)


@needs_goldens
def test_a_temporal_block_is_known_by_its_sizes_too() -> None:
    golden = Golden(GOLDENS / "b2_temporal_block.json")
    del golden.about["cls"]
    assert _pass(golden)


@needs_goldens
def test_one_stream_in_the_joint_form_needs_no_environment(tmp_path: Path) -> None:
    golden = _copy(tmp_path, "a_image_unet_step")
    tensors = {
        name.replace("w.", "w.unet_image.", 1): value
        for name, value in golden.tensors.items()
        if name.startswith("w.")
    }
    assert not any("connecters_out" in name for name in tensors)
    tensors |= {name: golden[name] for name in ("t", "context")} | {"x_image": golden["x"]}
    tensors |= {f"out_image_{way}": golden[f"out_{way}"] for way in ("official", "unaliased")}
    golden.about["config"] = {"unet_image": golden.about["config"]}
    golden.about["tensors"] = [name for name in tensors if not name.startswith("w.")]
    golden.tensors.clear()
    golden.tensors.update(tensors)
    assert _verdicts(golden) == dict.fromkeys(("out_image_official", "out_image_unaliased"), "pass")
