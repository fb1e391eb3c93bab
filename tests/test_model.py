"""Joint denoising (CoDi, section 3.4): who hears whom."""

from __future__ import annotations

import itertools

import pytest
import torch

from codi.model import INTERPOLATIONS, CoDi
from codi.types import Latents
from tests.small import (
    NAMES,
    RELEASED,
    awake_model,
    context,
    latents,
    small_config,
    small_model,
    speaking,
)

CONFIG = small_config()
PARTS = CONFIG.parts(("diffusers", "environments"))


@pytest.fixture(scope="module")
def awake_codi() -> CoDi:
    return awake_model(parts=PARTS).codi(NAMES)


def _steps(z: Latents, t: int = 500) -> dict[str, torch.Tensor]:
    return {name: torch.full((len(x),), t) for name, x in z.items()}


def _alone(z: Latents, name: str) -> Latents:
    return {name: z[name]}


@pytest.mark.parametrize(("hears", "changes"), list(itertools.permutations(NAMES, 2)))
@torch.no_grad()
def test_each_stream_hears_each_other(awake_codi: CoDi, hears: str, changes: str) -> None:
    z = latents(CONFIG, [hears, changes])
    other = z | {changes: z[changes] + 1.0}
    before, after = (
        awake_codi(streams, _steps(streams), context(), outputs=[hears])[hears]
        for streams in (z, other)
    )
    assert not torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_stream_alone_has_no_environment(awake_codi: CoDi, name: str) -> None:
    z = _alone(latents(CONFIG), name)
    assert awake_codi.environment_of(z, _steps(z)) == {}
    assert awake_codi.beside(name, {}) is None
    solo = awake_codi.diffusers[name](z[name], _steps(z)[name], context())
    assert torch.equal(awake_codi(z, _steps(z), context())[name], solo)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_joint_equals_solo_before_training(name: str) -> None:
    codi, z = speaking(small_model(parts=PARTS)).codi(NAMES), latents(CONFIG)
    joint = codi(z, _steps(z), context(), outputs=[name])[name]
    assert joint.any()
    assert torch.equal(joint, codi(_alone(z, name), _steps(z), context())[name])


@torch.no_grad()
def test_a_stream_does_not_attend_to_itself(awake_codi: CoDi) -> None:
    z = latents(CONFIG)
    environments = awake_codi.environment_of(z, _steps(z))
    changed = environments | {"audio": environments["audio"] + 1.0}
    before, after = (CoDi({}, {}).beside("audio", e) for e in (environments, changed))
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


def test_several_environments_are_interpolated() -> None:
    environments = {name: torch.randn(2, 8, 16) for name in NAMES}
    expected = (environments["image"] + environments["video"] + environments["audio"]) / 3
    beside = CoDi({}, {}).beside("text", environments)
    assert beside is not None
    torch.testing.assert_close(beside, expected)
    alone = CoDi({}, {}).beside("text", {name: environments[name] for name in ("text", "audio")})
    assert alone is not None
    assert torch.equal(alone, environments["audio"])


def test_timed_environments_average_what_lasts_and_keep_instants_whole() -> None:
    environments = {name: torch.randn(2, 1, 16).expand(2, 8, 16) for name in NAMES}
    environments["audio"] = torch.randn(2, 8, 16)
    codi = CoDi({}, {}, interpolation="timed")
    beside = codi.beside("text", environments)
    assert beside is not None
    heard = torch.stack([environments[name] for name in ("image", "video", "audio")])
    torch.testing.assert_close(beside.mean(1), heard.mean((0, 2)))
    instants = environments["audio"] - environments["audio"].mean(1, keepdim=True)
    torch.testing.assert_close(beside - beside.mean(1, keepdim=True), instants)


def test_two_streams_are_interpolated_alike_in_every_way() -> None:
    environments = {name: torch.randn(2, 8, 16) for name in ("text", "audio")}
    for interpolation in INTERPOLATIONS:
        beside = CoDi({}, {}, interpolation=interpolation).beside("text", environments)
        assert beside is not None
        torch.testing.assert_close(beside, environments["audio"])


def test_a_model_interpolates_as_its_configuration_says() -> None:
    for name, interpolate in INTERPOLATIONS.items():
        model = small_model(f'interpolation = "{name}"', parts=PARTS)
        assert model.codi(NAMES).interpolate is interpolate


@torch.no_grad()
def test_a_kept_stream_informs_and_is_not_predicted(awake_codi: CoDi) -> None:
    z = latents(CONFIG, ["video", "audio"])
    t = _steps(z) | {"video": torch.zeros(2, dtype=torch.long)}
    predicted = awake_codi(z, t, context(), outputs=["audio"])
    assert set(predicted) == {"audio"}
    other = z | {"video": z["video"] + 1.0}
    changed = awake_codi(other, t, context(), outputs=["audio"])
    assert not torch.allclose(predicted["audio"], changed["audio"], atol=1e-5)


@torch.no_grad()
def test_streams_may_be_at_different_steps(awake_codi: CoDi) -> None:
    z = latents(CONFIG, ["video", "audio"])
    near, far = (
        awake_codi(z, {"video": torch.full((2,), t), "audio": torch.full((2,), 500)}, context())
        for t in (1, 900)
    )
    assert not torch.allclose(near["audio"], far["audio"], atol=1e-5)


@torch.no_grad()
def test_each_stream_may_have_its_own_prompt(awake_codi: CoDi) -> None:
    z = latents(CONFIG, ["text", "audio"])
    one = context()
    own = awake_codi(z, _steps(z), {"text": one, "audio": one + 1.0})
    same = awake_codi(z, _steps(z), one)
    assert torch.equal(own["text"], same["text"])
    assert not torch.allclose(own["audio"], same["audio"], atol=1e-5)


def test_image_and_video_share_one_network() -> None:
    codi = small_model(parts=PARTS).codi(NAMES)
    assert codi.diffusers["image"] is codi.diffusers["video"]
    assert codi.environments["image"] is codi.environments["video"]


# --- the released CoDi's form ---


@torch.no_grad()
def test_with_its_own_wiring_a_stream_hears_only_itself() -> None:
    codi = awake_model(*RELEASED, parts=PARTS).codi(NAMES)
    z = latents(CONFIG, ["video", "audio"])
    t = _steps(z)
    both = codi(z, t, context())
    other = codi(z | {"audio": z["audio"] + 1.0}, t, context())
    assert torch.equal(other["video"], both["video"])
    assert not torch.allclose(other["audio"], both["audio"], atol=1e-5)
    assert not torch.allclose(codi(_alone(z, "video"), t, context())["video"], both["video"])


@torch.no_grad()
def test_an_environment_may_share_the_step_embedding_of_its_diffuser() -> None:
    codi = awake_model(*RELEASED, parts=PARTS).codi(NAMES)
    z = latents(CONFIG, ["text", "audio"])
    t = _steps(z)
    before = codi.environment_of(z, t)
    codi.diffusers["audio"].step_embedding.layers[0].bias.add_(1.0)  # type: ignore[union-attr, index]
    after = codi.environment_of(z, t)
    assert torch.equal(before["text"], after["text"])
    assert not torch.allclose(before["audio"], after["audio"], atol=1e-5)


def test_what_a_kept_stream_needs_of_its_diffuser_is_named() -> None:
    assert CONFIG.step_sharers(["video", "audio"]) == []
    released = small_config(*RELEASED)
    assert released.step_sharers(["video", "audio"]) == ["diffusers.vision", "diffusers.audio"]
