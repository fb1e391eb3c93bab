"""The vocoder: lengths, range, and the spectral loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import conv1d, leaky_relu

from codi.codecs.vocoder import VocoderConfig, spectral_loss
from codi.config import ConfigError

PAPER = VocoderConfig(bins=8, channels=64, upsample=(5, 4, 2, 2, 2))
FOURIER = VocoderConfig(
    bins=8, channels=16, upsample=(5,), upsample_kernels=(11,), istft_window=100, istft_hop=25
)


@pytest.mark.parametrize(("config", "hop"), [(PAPER, 160), (FOURIER, 125)])
@torch.no_grad()
def test_a_column_becomes_a_hop_of_samples(config: VocoderConfig, hop: int) -> None:
    assert config.hop == hop
    waveform = config.build()(torch.randn(2, 1, 16, 8))
    assert waveform.shape == (2, 16 * hop)
    assert waveform.abs().max() <= 1.0


@pytest.mark.parametrize("kernel", [5, 6, 10, 11])
@torch.no_grad()
def test_any_kernel_keeps_the_length(kernel: int) -> None:
    config = VocoderConfig(bins=4, channels=8, upsample=(5,), upsample_kernels=(kernel,))
    assert config.build()(torch.randn(1, 1, 12, 4)).shape == (1, 60)


@torch.no_grad()
def test_an_odd_excess_hangs_over_where_asked() -> None:
    config = VocoderConfig(
        bins=4, channels=8, upsample=(5, 2), upsample_kernels=(16, 4), overhang=True
    )
    assert config.build()(torch.randn(1, 1, 12, 4)).shape == (1, (12 * 5 + 1) * 2)


@pytest.mark.parametrize("paired", [True, False])
@torch.no_grad()
def test_the_residual_blocks_are_those_of_hifi_gan(paired: bool) -> None:
    """Its two kinds (Kong et al. 2020, A.1, and its code), each kernel with its own dilations."""
    dilations = ((1, 3), (2,))
    config = VocoderConfig(
        bins=4,
        channels=8,
        upsample=(2,),
        upsample_kernels=(4,),
        kernels=(3, 5),
        dilations=dilations,
        paired=paired,
    )
    blocks: Any = config.build().blocks[0]
    x = torch.randn(1, 4, 30)
    for block, kernel, own in zip(blocks, config.kernels, dilations, strict=True):
        expected = x
        for i, dilation in enumerate(own):
            first = block.dilated[i]
            hidden = conv1d(
                leaky_relu(expected, 0.1),
                first.weight,
                first.bias,
                padding=dilation * (kernel - 1) // 2,
                dilation=dilation,
            )
            if paired:
                second = block.plain[i]
                hidden = conv1d(
                    leaky_relu(hidden, 0.1), second.weight, second.bias, padding=kernel // 2
                )
            expected = expected + hidden
        torch.testing.assert_close(block(x), expected)
        assert len(block.plain) == paired * len(own)


@pytest.mark.parametrize("dilations", [((1, 3), (1, 3)), ((1,), 3, (5,))])
def test_dilations_of_other_kernels_are_refused(dilations: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError, match=r"dilations = .*one list for each of the 3 kernels"):
        VocoderConfig(dilations=dilations)  # type: ignore[arg-type]


@torch.no_grad()
def test_training_begins_nearly_silent() -> None:
    assert FOURIER.build()(torch.randn(2, 1, 16, 8)).abs().mean() < 0.05


def test_a_sound_is_at_no_distance_from_itself() -> None:
    x = 0.3 * torch.randn(2, 4000)
    assert spectral_loss(x, x) == 0.0
    nearer, farther = (spectral_loss(x + level * torch.randn_like(x), x) for level in (0.01, 0.3))
    assert 0 < nearer < farther


def test_silence_against_silence_is_no_distance() -> None:
    assert spectral_loss(torch.zeros(1, 4000), torch.zeros(1, 4000)) == 0.0
