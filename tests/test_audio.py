"""Waveform and mel spectrogram."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.audio import MelConfig, hz_to_mel, levelled, log_mel, magnitudes, mel_filters, mel_to_hz

CONFIG = MelConfig(hop=125)


@given(st.floats(0.0, 20_000.0))
def test_mel_and_back(hz: float) -> None:
    there = hz_to_mel(torch.tensor(hz, dtype=torch.float64))
    assert mel_to_hz(there).item() == pytest.approx(hz, abs=1e-6)


def test_every_filter_is_a_triangle_with_an_area_of_one() -> None:
    filters = mel_filters(MelConfig(window=8192))
    step_hz = 16_000 / 8192
    assert filters.min() >= 0
    torch.testing.assert_close(filters.sum(1) * step_hz, torch.ones(64), atol=0.05, rtol=0)
    rises = filters.diff(dim=1).sign()
    turns = (rises[:, 1:] - rises[:, :-1] < -1).sum(1)
    assert (turns <= 1).all()  # one peak


def test_no_filter_is_empty() -> None:
    assert mel_filters(CONFIG).sum(1).min() > 0


@pytest.mark.parametrize("hz", [110.0, 440.0, 1000.0, 3000.0, 6000.0])
def test_the_energy_of_a_sine_falls_in_its_band(hz: float) -> None:
    time_s = torch.arange(16_000) / 16_000
    mel = log_mel(0.5 * torch.sin(2 * math.pi * hz * time_s)[None], CONFIG)
    centres = mel_to_hz(torch.linspace(0, hz_to_mel(torch.tensor(8000.0)).item(), 66))[1:-1]
    loudest = mel[0, 0].mean(0).argmax()
    assert abs(loudest - (centres - hz).abs().argmin()) <= 1


@pytest.mark.parametrize(("hop", "samples"), [(125, 32_000), (160, 16_000), (125, 2000)])
def test_there_is_a_column_for_every_hop(hop: int, samples: int) -> None:
    config = MelConfig(hop=hop)
    mel = log_mel(torch.randn(2, samples), config)
    assert mel.shape == (2, 1, config.frames(samples), 64)
    assert config.frames(samples) == samples // hop


def test_silence_is_the_floor() -> None:
    mel = log_mel(torch.zeros(1, 4000), CONFIG)
    torch.testing.assert_close(mel, torch.full_like(mel, math.log(CONFIG.floor)))


def test_a_click_is_heard_in_its_column() -> None:
    waveform = torch.zeros(1, 16_000)
    waveform[0, 125 * 40 + 62] = 1.0
    mel = log_mel(waveform, MelConfig(hop=125, window=256))
    assert mel[0, 0].mean(1).argmax() == 40


@pytest.mark.parametrize(("centred_on", "sample"), [("middle", 62), ("start", 0)])
def test_a_column_is_centred_where_it_says(centred_on: str, sample: int) -> None:
    waveform = torch.zeros(1, 16_000)
    waveform[0, 125 * 40 + sample] = 1.0
    config = MelConfig(hop=125, window=512, centred_on=centred_on)  # type: ignore[arg-type]
    loudness = log_mel(waveform, config)[0, 0].mean(1)
    assert loudness.argmax() == 40
    torch.testing.assert_close(loudness[39], loudness[41], atol=0.2, rtol=0)


def test_a_levelled_sound_has_no_mean_and_a_peak_of_a_half() -> None:
    waveform = torch.randn(3, 1000) * torch.tensor([[0.01], [1.0], [30.0]]) + 5.0
    level = levelled(waveform)
    torch.testing.assert_close(level.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(level.abs().amax(1), torch.full((3,), 0.5))


@pytest.mark.parametrize("samples", [4000, 16_000, 20_000])
def test_sounds_are_cut_or_padded_to_the_columns(samples: int) -> None:
    config, waveform = MelConfig(columns=100), 0.1 * torch.randn(1, samples)
    mel = log_mel(waveform, config)
    assert mel.shape == (1, 1, 100, 64) == (1, 1, config.frames(samples), 64)
    heard = min(samples // 160, 100) - 4
    torch.testing.assert_close(mel[:, :, :heard], log_mel(waveform, MelConfig())[:, :, :heard])


def test_twice_as_loud_is_the_same_step_everywhere() -> None:
    waveform = 0.1 * torch.randn(1, 8000)
    once, twice = magnitudes(waveform, 512, 128), magnitudes(2 * waveform, 512, 128)
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-3)
