"""Packed weights: the same numbers by other kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codi.nn.conv import Dense
from codi.nn.packing import PackedConv2d, PackedLinear, PackedPointwise, pack, packable
from codi.nn.precision import HeldParameter
from codi.nn.temporal import TemporalConfig
from codi.unets.text_unet import TextUNetConfig
from codi.unets.unet import UNetConfig
from tests.small import awake

pytestmark = pytest.mark.skipif(
    not packable(torch.float32, torch.device("cpu")), reason="torch has no oneDNN here"
)

UNET = UNetConfig(
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
    temporal=TemporalConfig(shift_chunks=4),
)
TEXT = UNetConfig(
    latent_channels=16, channels=16, context_width=8, duration_s=2.0, multipliers=(1, 2), depth=1,
    attention=(True, True), head_channels=8, environment_width=6, groups=8,
)  # fmt: skip


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv2d(5, 7, (1, 3), padding=(0, 1), bias=False),
        nn.Conv2d(5, 7, 3, stride=2),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 1, bias=False),
        nn.Conv2d(4, 8, 1, stride=2),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_convolution_gives_the_same_numbers_at_every_size(layer: nn.Conv2d) -> None:
    network = nn.Sequential(layer)
    pictures = [torch.randn(n, layer.in_channels, h, w) for n, h, w in ((2, 8, 6), (1, 5, 9))]
    expected = [network(x) for x in pictures]
    pack(network)
    alone = (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
    assert type(network[0]) is (PackedPointwise if alone else PackedConv2d)
    for x, wanted in zip(pictures, expected, strict=True):
        torch.testing.assert_close(network(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (1, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_linear_layer_gives_the_same_numbers(shape: tuple[int, ...], bias: bool) -> None:
    network, x = nn.Sequential(nn.Linear(6, 9, bias=bias)), torch.randn(shape)
    expected = network(x)
    pack(network)
    assert isinstance(network[0], PackedLinear)
    for given in (x, x.transpose(0, -2).contiguous().transpose(0, -2)):  # of any layout
        torch.testing.assert_close(network(given), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_dense_layer_keeps_its_map() -> None:
    network, x = nn.Sequential(Dense(6, 5, positions=4, into=3)), torch.randn(2, 6, 1, 4)
    expected = network(x)
    pack(network)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_a_network_gives_the_same_numbers(frames: int) -> None:
    unet = awake(UNET.build()).eval()
    given = torch.tensor([3, 500]), torch.randn(2, 1, 8), torch.randn(2, 4, 6)
    z = torch.randn(2, 4, frames, 8, 8)
    expected = unet(z, *given)
    pack(unet)
    for _ in range(2):  # the first call packs
        torch.testing.assert_close(unet(z, *given), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_network_without_convolutions_gives_the_same_numbers() -> None:
    unet = awake(TextUNetConfig(12, 2, TEXT, blocks="fully_connected").build()).eval()
    given = torch.randn(2, 12), torch.tensor([3, 500]), torch.randn(2, 5, 8)
    expected = unet(*given)
    pack(unet)
    torch.testing.assert_close(unet(*given), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_weights_are_not_held_twice() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(3, 4, 3))
    pack(network)
    assert not list(network.parameters())
    linear, convolution = network
    linear(torch.randn(2, 8))
    convolution(torch.randn(1, 3, 5, 5))
    assert isinstance(linear, PackedLinear)
    assert isinstance(convolution, PackedConv2d)
    assert linear.plain is convolution.plain is None


def test_what_no_kernel_takes_stays() -> None:
    layers = [nn.Linear(3, 3, dtype=torch.float64), nn.Conv2d(3, 3, 3, padding="same")]
    narrow = nn.Linear(3, 3)
    narrow.weight = HeldParameter.of(torch.zeros(3, 3, dtype=torch.bfloat16), torch.float32)
    network = nn.Sequential(*layers, narrow, nn.LayerNorm(3))
    before = list(network)
    pack(network)
    assert list(network) == before


def test_other_devices_convolve_channels_last() -> None:
    layer = nn.Conv2d(4, 5, 3, device="meta")
    pack(nn.Sequential(layer))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
