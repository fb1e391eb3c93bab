"""The audio codec and its vocoder's objective."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from codi.codecs.mel import MelCodec, MelCodecConfig
from tests.small import small_config, small_model


def _codec() -> MelCodec:
    codec = small_model(parts=["codecs.audio"]).codec("audio")
    assert isinstance(codec, MelCodec)
    return codec


def test_a_vocoder_of_another_hop_is_refused() -> None:
    config = small_config().part("codecs", "audio")
    assert isinstance(config, MelCodecConfig)
    other = dataclasses.replace(config, mel=dataclasses.replace(config.mel, hop=160))
    with pytest.raises(ValueError, match=r"the vocoder makes 125 samples .* takes 160"):
        other.build()


def test_a_spectrogram_is_centred() -> None:
    mel = _codec().spectrogram(0.3 * torch.randn(2, 32_000))
    assert mel.shape == (2, 1, 256, 64)
    assert mel.abs().max() < 3.0


@torch.no_grad()
def test_what_hangs_over_is_cut() -> None:
    kernel = {"upsample": (5, 5, 5), "upsample_kernels": (10, 10, 10), "istft_window": None}
    config = small_config().part("codecs", "audio")
    vocoder = dataclasses.replace(config.vocoder, **kernel, istft_hop=1, overhang=True)
    codec = dataclasses.replace(config, vocoder=vocoder).build()
    mel = torch.randn(1, 1, 8, 64)
    longer = codec.vocoder(mel)
    assert longer.shape[1] > 8 * 125
    assert torch.equal(codec.waveform(mel), longer[:, : 8 * 125])


@torch.no_grad()
def test_only_a_latent_gone_wrong_is_clipped() -> None:
    codec = dataclasses.replace(small_config().part("codecs", "audio"), clip_outliers=True).build()
    z = torch.randn(2, 4, 1, 16, 4)
    z[1, 0, 0, 0, 0] = 101.0
    seen: list[torch.Tensor] = []
    codec.autoencoder.decoder.register_forward_hook(
        lambda _module, given, _output: seen.append(given[0])
    )
    codec.decode(z)
    assert torch.equal(seen[0][:1], z[:1, :, 0])
    assert torch.equal(seen[0][1:], z[1:, :, 0].clamp(-10.0, 10.0))


def test_the_vocoder_hears_only_the_crop() -> None:
    codec, x = _codec(), 0.3 * torch.randn(2, 32_000)
    loss = codec.vocoder_losses(x, columns=32, start=16)["spectral"]
    assert loss > 0
    assert loss == codec.vocoder_losses(x, columns=32, start=16)["spectral"]
    assert loss != codec.vocoder_losses(x, columns=32, start=17)["spectral"]


def test_only_the_vocoder_learns_from_its_loss() -> None:
    codec = _codec()
    codec.vocoder_losses(0.3 * torch.randn(1, 32_000), 32, 0)["spectral"].backward()
    assert all(p.grad is None for p in codec.autoencoder.parameters())
    assert any(p.grad is not None for p in codec.vocoder.parameters())
