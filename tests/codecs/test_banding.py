"""Decoders in bands of rows: what they are over whole maps, at a fraction of the memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from codi.codecs.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from codi.codecs.banding import in_bands
from codi.nn.conv import ResBlock, Upsample
from tests.small import awake

CONFIG = AutoencoderKLConfig(
    3, 4, 16, multipliers=(1, 2, 2), depth=1, groups=4, quant_convolutions=True
)


@pytest.mark.parametrize("positions", [1, 7, 40, 100, 10_000])
@torch.no_grad()
def test_every_kind_of_layer_is_the_same_in_bands(positions: int) -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Sequential(ResBlock(8, 8, groups=4), nn.Flatten(2), nn.Unflatten(2, (9, 5))),
        ResBlock(8, 16, groups=4),
        Upsample(16),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.Conv2d(16, 2, 3, padding=1),
        nn.GroupNorm(1, 2),
    )
    awake(layers)
    x = torch.randn(2, 3, 9, 5) + 3.0
    torch.testing.assert_close(in_bands(layers, x, positions), layers(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("levels", [(), (0, 1)])
@torch.no_grad()
def test_a_large_picture_is_decoded_exactly(patch: int, levels: tuple[int, ...]) -> None:
    config = dataclasses.replace(CONFIG, patch=patch, attention_levels=levels)
    whole: AutoencoderKL = awake(config.build()).eval()
    banded = AutoencoderKL(dataclasses.replace(whole.config, tile_px=32)).eval()
    banded.load_state_dict(whole.state_dict())
    z = torch.randn(1, 4, 2, 18, 11)
    expected = whole.decode(z)
    torch.testing.assert_close(banded.decode(z), expected, rtol=1e-4, atol=1e-5)
    tiled = AutoencoderKL(dataclasses.replace(banded.config, tile_overlap=0.25)).eval()
    tiled.load_state_dict(whole.state_dict())
    error = (tiled.decode(z) - expected).square().mean() / expected.var()
    assert error > 1e-4  # what is spared by blending tiles is not exact


@torch.no_grad()
def test_no_band_is_larger_than_asked_for() -> None:
    codec = awake(dataclasses.replace(CONFIG, tile_px=32).build()).eval()
    seen: list[int] = []
    for module in codec.decoder.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(
                lambda _module, _args, made: seen.append(made.shape[2] * made.shape[3])
            )
    codec.decode(torch.randn(1, 4, 1, 24, 24))
    width = 4 * 24
    assert max(seen) <= 32 * 32 + 4 * width  # two rows on each side, doubled


@torch.no_grad()
def test_half_precision_keeps_the_statistics_of_a_whole_picture() -> None:
    codec = awake(dataclasses.replace(CONFIG, tile_px=32).build()).eval()
    exact = AutoencoderKL(CONFIG).eval()
    exact.load_state_dict(codec.state_dict())
    z = torch.randn(1, 4, 1, 20, 20)
    wide = exact.decode(z)
    rounded = exact.bfloat16().decode(z.bfloat16()).float()
    banded = codec.bfloat16().decode(z.bfloat16()).float()
    assert (banded - wide).square().mean() < 1.5 * (rounded - wide).square().mean()
