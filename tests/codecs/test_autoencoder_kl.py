"""The picture autoencoder."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from codi.codecs.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from codi.config import ConfigError
from codi.nn.conv import ResBlock
from tests.small import awake


def _codec(**changes: object) -> AutoencoderKL:
    settings: dict[str, object] = {
        "in_channels": 3,
        "latent_channels": 2,
        "channels": 8,
        "multipliers": (1, 2),
        "depth": 1,
        "groups": 4,
    }
    return AutoencoderKLConfig(**(settings | changes)).build()  # type: ignore[arg-type]


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_pixels_shrink_by_the_factor(patch: int, multipliers: tuple[int, ...]) -> None:
    codec = _codec(patch=patch, multipliers=multipliers)
    factor = codec.config.factor
    assert factor == patch * 2 ** (len(multipliers) - 1)
    x = torch.randn(1, 3, 2, 2 * factor, 3 * factor)
    z = codec.encode(x)
    assert z.shape == (1, 2, 2, 2, 3)
    assert codec.decode(z).shape == x.shape


@torch.no_grad()
@torch.no_grad()
def test_the_networks_may_have_other_channels_than_the_latent() -> None:
    codec = _codec(inner_channels=3, quant_convolutions=True)
    x = torch.randn(1, 3, 1, 8, 8)
    z = codec.encode(x)
    assert z.shape == (1, 2, 1, 4, 4)
    assert codec.decode(z).shape == x.shape
    with pytest.raises(ConfigError, match="inner_channels = 3 needs quant_convolutions"):
        _codec(inner_channels=3)


@torch.no_grad()
def test_blocks_of_a_level_may_attend() -> None:
    """What a corner of the latent says then reaches the other one, without a middle attention."""
    shape = {"middle_attention": False, "multipliers": (1, 1)}
    z = torch.randn(1, 2, 1, 24, 24)
    other = z.clone()
    other[..., 0, 0] += 1.0
    for levels, reaches in (((), False), ((1,), True)):
        codec = awake(_codec(**shape, attention_levels=levels)).eval()
        for block in codec.decoder.modules():
            if isinstance(block, ResBlock):  # whose norms every position reaches as well
                for name in ("norm_in", "norm_out"):
                    setattr(block, name, torch.nn.Identity())
        codec.decoder[-3] = torch.nn.Identity()
        moved = (codec.decode_raw(other) - codec.decode_raw(z))[..., -1, -1].abs().max()
        assert bool(moved > 1e-6) is reaches
    with pytest.raises(ConfigError, match="attention_levels has 2; levels are 0 to 1"):
        _codec(**shape, attention_levels=(2,))


def test_a_clip_is_its_frames() -> None:
    codec, clip = awake(_codec()), torch.randn(2, 3, 5, 16, 16)
    frame = clip[:, :, 2:3]
    torch.testing.assert_close(codec.encode(clip)[:, :, 2:3], codec.encode(frame))


@torch.no_grad()
def test_a_few_frames_at_a_time_are_all_of_them() -> None:
    codec, clip = awake(_codec()), torch.randn(2, 3, 5, 16, 16)
    few = _codec(tile_px=24)  # two frames
    few.load_state_dict(codec.state_dict())
    z = codec.encode(clip)
    assert torch.equal(few.encode(clip), z)
    assert torch.equal(few.decode(z), codec.decode(z))


def test_gradients_need_all_frames_at_once() -> None:
    codec = _codec(tile_px=2)
    seen: list[int] = []
    codec.decoder.register_forward_hook(lambda _m, given, _out: seen.append(len(given[0])))
    codec.decode(torch.randn(1, 2, 3, 4, 4))
    with torch.no_grad():
        codec.decode(torch.randn(1, 2, 3, 1, 1))
    assert seen == [3, 1, 1, 1]


@torch.no_grad()
def test_tiles_of_a_smooth_picture_are_the_picture() -> None:
    whole = _codec(middle_attention=False, multipliers=(1, 1))
    for module in whole.modules():
        if isinstance(module, ResBlock):
            torch.nn.init.normal_(module.conv_out.weight, std=0.02)
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "replicate"  # so that the edge of a tile is no event
    tiled = copy.deepcopy(whole)
    tiled.config = dataclasses.replace(whole.config, tile_px=64, tile_overlap=0.5)
    # A pattern with the same mean and deviation in every tile, as norms see one tile only.
    waves = [torch.sin(2 * math.pi / 16 * torch.arange(size)) for size in (48, 64)]
    z = (waves[0][:, None] + waves[1]).expand(1, 2, 1, 48, 64)
    expected, found = whole.decode(z), tiled.decode(z)
    assert found.shape == (1, 3, 1, 96, 128)
    assert not torch.equal(found, expected)
    assert (found - expected).square().mean().sqrt() < 0.05 * expected.std()


@torch.no_grad()
def test_default_models_are_never_tiled() -> None:
    codec, z = _codec(), torch.randn(1, 2, 16, 32, 32)  # a clip of 64 x 64
    sizes: list[torch.Size] = []
    codec.decoder.register_forward_hook(lambda _m, given, _out: sizes.append(given[0].shape))
    codec.decode(z)
    assert sizes == [(16, 2, 32, 32)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tile_px": 1}, "tile_px = 1"), ({"tile_overlap": 0.9}, r"tile_overlap = 0\.9")],
)
def test_tiles_that_cannot_be_laid_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _codec(**changes)


@torch.no_grad()
def test_a_sample_has_the_posteriors_moments() -> None:
    codec, x = awake(_codec(posterior="sample")), torch.randn(1, 3, 1, 16, 16)
    mean, log_variance = codec.posterior(x)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([codec.encode_raw(x, generator) for _ in range(100)])
    deviation = (0.5 * log_variance).exp()
    assert ((drawn.mean(0) - mean) / deviation).abs().max() < 0.5
    torch.testing.assert_close(drawn.std(0) / deviation, torch.ones_like(mean), atol=0.35, rtol=0)


def test_the_terms_are_those_asked_for() -> None:
    x = torch.rand(2, 3, 1, 16, 16)
    assert set(_codec().losses(x)) == {"reconstruction", "kl"}
    assert set(_codec(edge_weight=0.5).losses(x)) == {"reconstruction", "kl", "edges"}


def test_the_same_noise_gives_the_same_losses() -> None:
    codec, x = awake(_codec(latent_noise=0.5)), torch.rand(2, 3, 1, 16, 16)
    first, second = (codec.losses(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first == second
    assert first != codec.losses(x, torch.Generator().manual_seed(2))


def test_the_kl_term_is_zero_for_a_standard_normal() -> None:
    codec = _codec(kl_weight=1.0)
    for parameter in codec.encoder[-1].parameters():
        torch.nn.init.zeros_(parameter)
    assert codec.losses(torch.rand(2, 3, 1, 16, 16))["kl"] == 0.0
