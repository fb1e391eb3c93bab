"""The picture autoencoder."""

from __future__ import annotations

import pytest
import torch

from codi.codecs.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
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
def test_a_clip_is_its_frames() -> None:
    codec, clip = awake(_codec()), torch.randn(2, 3, 5, 16, 16)
    frame = clip[:, :, 2:3]
    torch.testing.assert_close(codec.encode(clip)[:, :, 2:3], codec.encode(frame))


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
