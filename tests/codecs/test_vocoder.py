"""The vocoder: lengths, range, and the spectral loss."""

from __future__ import annotations

import pytest
import torch

from codi.codecs.vocoder import VocoderConfig, spectral_loss

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
