"""The diffusion UNet on latents."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codi.nn.temporal import TemporalConfig
from codi.unets.unet import UNet, UNetConfig
from tests.small import awake

CONFIG = UNetConfig(
    latent_channels=4,
    channels=16,
    context_width=8,
    duration_s=2.0,
    multipliers=(1, 2),
    depth=1,
    attention=(True, True),
    head_channels=8,
    environment_width=6,
    time_axis="frame",
    groups=8,
    feed_forward_multiple=2,
    temporal=TemporalConfig(shift_chunks=4, shift_kernel=1),
)
AFTER = TemporalConfig(shift_chunks=4, shift_kernel=1, place="after")


def _unet(**changes: Any) -> UNet:
    return awake(dataclasses.replace(CONFIG, **changes).build()).eval()


def _given(size: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randint(1, 1000, (size,)), torch.randn(size, 1, 8)


@pytest.mark.parametrize(
    "shape", [(4, 1, 4, 4), (4, 5, 4, 4), (4, 1, 8, 2), (4, 16, 2, 2), (4, 1, 2, 6)]
)
@torch.no_grad()
def test_the_prediction_has_the_shape_of_the_latent(shape: tuple[int, ...]) -> None:
    z = torch.randn(2, *shape)
    assert _unet()(z, *_given()).shape == z.shape


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
@pytest.mark.parametrize("resample", [True, False])
@torch.no_grad()
def test_any_number_of_levels_and_blocks_fits(
    depth: int, multipliers: tuple[int, ...], resample: bool
) -> None:
    unet = _unet(
        depth=depth,
        multipliers=multipliers,
        attention=(True,) * len(multipliers),
        resample=resample,
        temporal=None,
    )
    z = torch.randn(1, 4, 1, 8, 4)
    assert unet(z, *_given(1)).shape == z.shape


def test_one_entry_for_each_level_is_needed() -> None:
    with pytest.raises(ValueError, match="give one entry for each level"):
        _unet(attention=(True,))


def test_heads_have_to_be_given() -> None:
    with pytest.raises(ValueError, match="needs `heads` or `head_channels`"):
        _unet(heads=None, head_channels=None)


@torch.no_grad()
def test_heads_are_given_by_number_too() -> None:
    assert _unet(heads=2, head_channels=None)(torch.randn(2, 4, 1, 4, 4), *_given()).any()


@pytest.mark.parametrize("temporal", [CONFIG.temporal, AFTER])
@torch.no_grad()
def test_an_image_passes_by_every_temporal_block(temporal: TemporalConfig) -> None:
    unet = _unet(temporal=temporal)
    image_model = _unet(temporal=None)
    spatial = {k: v for k, v in unet.state_dict().items() if ".temporal." not in k}
    image_model.load_state_dict(spatial)
    z, (t, context) = torch.randn(2, 4, 1, 4, 4), _given()
    assert torch.equal(unet(z, t, context), image_model(z, t, context))


@pytest.mark.parametrize("temporal", [CONFIG.temporal, AFTER])
@torch.no_grad()
def test_a_fresh_video_model_is_the_image_model_on_every_frame(temporal: TemporalConfig) -> None:
    unet = _unet(temporal=temporal)
    fresh = unet.config.build().state_dict()
    unet.load_state_dict({k: v for k, v in fresh.items() if ".temporal." in k}, strict=False)
    clip, (t, context) = torch.randn(2, 4, 5, 4, 4), _given()
    frames = torch.stack([unet(clip[:, :, i : i + 1], t, context)[:, :, 0] for i in range(5)], 2)
    torch.testing.assert_close(unet(clip, t, context), frames, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_untrained_environment_attention_changes_nothing() -> None:
    unet = CONFIG.build().eval()
    torch.nn.init.normal_(unet.conv_out.weight)  # type: ignore[arg-type]
    z, (t, context) = torch.randn(2, 4, 3, 4, 4), _given()
    assert torch.equal(unet(z, t, context), unet(z, t, context, torch.randn(2, 8, 6)))


APART: dict[str, Any] = {"environment": "transformer", "listening": (True, False)}


@torch.no_grad()
def test_transformers_for_the_environment_change_nothing_untrained() -> None:
    unet = dataclasses.replace(CONFIG, **APART).build().eval()
    torch.nn.init.normal_(unet.conv_out.weight)  # type: ignore[arg-type]
    z, (t, context) = torch.randn(2, 4, 3, 4, 4), _given()
    assert torch.equal(unet(z, t, context), unet(z, t, context, torch.randn(2, 1, 6)))


@torch.no_grad()
def test_only_levels_that_listen_have_them_and_the_middle_has_none() -> None:
    unet = _unet(**APART)
    found = {name for name, _ in unet.named_modules() if name.endswith("environment_attention")}
    levels = {name.rpartition(".environment_attention")[0] for name in found}
    assert levels == {"down.0.0", "up.1.0", "up.1.1"}
    z, (t, context) = torch.randn(2, 4, 3, 4, 4), _given()
    first, second = (unet(z, t, context, torch.randn(2, 1, 6)) for _ in range(2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("skips", ["standard", "aliased"])
@torch.no_grad()
def test_aliased_skips_give_the_middle_twice(skips: str) -> None:
    unet, seen = _unet(skips=skips), []
    innermost: nn.Module = unet.up[0][0]  # type: ignore[index]
    innermost.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    unet(torch.randn(2, 4, 1, 4, 4), *_given())
    middle, skip = seen[0].chunk(2, dim=1)
    assert torch.equal(middle, skip) == (skips == "aliased")


@torch.no_grad()
def test_a_level_may_have_its_own_number_of_blocks() -> None:
    unet = _unet(depth=(2, 1))
    assert [len(blocks) for blocks in unet.down] == [2, 1]  # type: ignore[arg-type]
    assert [len(blocks) for blocks in unet.up] == [2, 3]  # type: ignore[arg-type]
    z = torch.randn(2, 4, 1, 4, 4)
    assert unet(z, *_given()).shape == z.shape


@torch.no_grad()
def test_weights_that_count_from_zero_are_told_one_less() -> None:
    ours, theirs = _unet(), _unet(first_step=0)
    theirs.load_state_dict(ours.state_dict())
    z, (t, context) = torch.randn(2, 4, 1, 4, 4), _given()
    assert torch.equal(theirs(z, t + 1, context), ours(z, t, context))
    assert torch.equal(ours.embed_step(t), theirs.embed_step(t + 1))


def test_a_fully_connected_unet_keeps_its_channels() -> None:
    with pytest.raises(ValueError, match="needs both alike"):
        _unet(positions=4)


@pytest.mark.parametrize("time_axis", ["frame", "height", "none"])
@torch.no_grad()
def test_a_trained_one_listens(time_axis: str) -> None:
    unet = _unet(time_axis=time_axis)
    z, (t, context) = torch.randn(2, 4, 3, 4, 4), _given()
    first, second = (unet(z, t, context, torch.randn(2, 8, 6)) for _ in range(2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("given", ["t", "context"])
@torch.no_grad()
def test_step_and_prompt_are_heard(given: str) -> None:
    unet, z, (t, context) = _unet(), torch.randn(2, 4, 3, 4, 4), _given()
    other = (t + 1, context) if given == "t" else (t, context + 1.0)
    assert not torch.allclose(unet(z, t, context), unet(z, *other), atol=1e-5)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    unet, z, (t, context) = _unet(), torch.randn(3, 4, 3, 4, 4), _given(3)
    environment = torch.randn(3, 8, 6)
    whole = unet(z, t, context, environment)
    alone = unet(z[1:2], t[1:2], context[1:2], environment[1:2])
    torch.testing.assert_close(whole[1:2], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_sound_hears_the_environment_of_its_own_time() -> None:
    unet = _unet(time_axis="height", temporal=None, multipliers=(1,), attention=(True,))
    for name, parameter in unet.named_parameters():
        if name.endswith("log_rate"):
            parameter.fill_(5.0)  # narrow windows
        if "self_attention.to_out" in name:
            parameter.zero_()  # nothing else carries news along the clip but convolutions
    z, (t, context) = torch.randn(1, 4, 1, 64, 2), _given(1)
    environment = torch.randn(1, 8, 6)
    changed = environment.clone()
    changed[:, 5] += 3.0
    difference = unet(z, t, context, changed) - unet(z, t, context, environment)
    rows = difference.abs().sum((0, 1, 2, 4))
    assert rows[40:48].mean() > 2 * rows[:24].mean()


@torch.no_grad()
def test_a_pooled_prompt_reaches_levels_that_do_not_attend() -> None:
    deaf = {"attention": (False, False), "listening": (False, False), "environment_width": None}
    z, (t, context) = torch.randn(1, 4, 1, 4, 4), _given(1)
    for pooled in (False, True):
        unet = _unet(pooled_context=pooled, **deaf)
        for block in unet.middle:  # the middle attends in every network
            block.transformer = None  # type: ignore[assignment]
        told = not torch.equal(unet(z, t, context), unet(z, t, -context))
        assert told == pooled


@torch.no_grad()
def test_a_network_that_gains_a_pooled_prompt_begins_as_it_was() -> None:
    plain = _unet()
    pooled = dataclasses.replace(CONFIG, pooled_context=True).build().eval()
    lacking = pooled.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("context_embedding.") for name in lacking)
    z, given = torch.randn(2, 4, 3, 4, 4), _given()
    torch.testing.assert_close(pooled(z, *given), plain(z, *given))
