"""The UNet on a sentence's one vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codi.unets.text_unet import TextUNet, TextUNetConfig
from codi.unets.unet import UNetConfig
from tests.small import awake


def _unet(positions: int, blocks: Any = "convolution") -> TextUNet:
    inner = UNetConfig(
        latent_channels=16,
        channels=16,
        context_width=8,
        duration_s=2.0,
        multipliers=(1, 2),
        depth=1,
        attention=(True, True),
        head_channels=8,
        environment_width=6,
        groups=8,
    )
    return awake(
        TextUNetConfig(latent_width=12, positions=positions, unet=inner, blocks=blocks).build()
    )


both = pytest.mark.parametrize("blocks", ["convolution", "fully_connected"])


@both
@pytest.mark.parametrize("positions", [1, 2, 4])
@torch.no_grad()
def test_a_vector_goes_in_and_comes_out(positions: int, blocks: str) -> None:
    unet, z = _unet(positions, blocks), torch.randn(3, 12)
    assert unet(z, torch.tensor([1, 2, 3]), torch.randn(3, 1, 8)).shape == (3, 12)


@torch.no_grad()
def test_convolutions_are_one_dimensional() -> None:
    kernels = {tuple(m.kernel_size) for m in _unet(2).modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(kernel[0] in (1, 3) for kernel in kernels)
    assert (1, 3) in kernels


def test_fully_connected_blocks_have_no_convolution_but_in_transformers() -> None:
    unet = _unet(4, "fully_connected")
    names = [name for name, m in unet.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert names
    assert all("transformer.proj_" in name for name in names)


@torch.no_grad()
def test_a_fresh_fully_connected_one_says_nothing() -> None:
    fresh = _unet(4, "fully_connected").config.build()
    assert not fresh(torch.randn(2, 12), torch.tensor([1, 2]), torch.randn(2, 1, 8)).any()


@both
@torch.no_grad()
def test_everything_given_is_heard(blocks: str) -> None:
    unet, z = _unet(4, blocks), torch.randn(1, 12)
    t, context, environment = torch.tensor([9]), torch.randn(1, 1, 8), torch.randn(1, 8, 6)
    base = unet(z, t, context, environment)
    for other in (
        unet(z, t + 300, context, environment),
        unet(z, t, context + 1.0, environment),
        unet(z, t, context, environment + 1.0),
        unet(z, t, context),
    ):
        assert not torch.allclose(base, other, atol=1e-5)
