"""CLAP as prompt encoder: the library's own numbers, our contract."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from codi.config import ConfigError
from codi.encoders.clap import ClapAudio, ClapAudioConfig, resample, resample_windowed

pytest.importorskip("transformers", reason="needs codi[external]")

CONFIG = ClapAudioConfig(
    context_width=24,
    duration_s=1.0,
    channels=8,
    depths=(1, 1),
    heads=(1, 2),
    window=4,
    picture=128,
)


def _encoder(**changes: Any) -> ClapAudio:
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changes).build().eval()


def _published(encoder: ClapAudio) -> Any:
    """Return the library's whole CLAP with the weights of our encoder."""
    from transformers import ClapConfig, ClapModel

    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = ClapModel(
        ClapConfig(
            text_config=text | {"intermediate_size": 16, "vocab_size": 20},
            audio_config=encoder.tower.config.to_dict(),
            projection_dim=24,
        )
    )
    whole.audio_model.load_state_dict(encoder.tower.state_dict())
    whole.audio_projection.linear1.load_state_dict(encoder.to_hidden.state_dict())
    whole.audio_projection.linear2.load_state_dict(encoder.to_embedding.state_dict())
    return whole.eval()


@pytest.mark.parametrize("seconds", [1.0, 0.4, 0.1])
def test_spectrograms_are_the_librarys(seconds: float) -> None:
    from transformers import ClapFeatureExtractor

    sound = 0.3 * torch.randn(1, round(48_000 * seconds))
    extractor = ClapFeatureExtractor(
        max_length_s=1, frequency_min=50, frequency_max=14_000, truncation="rand_trunc"
    )
    expected = extractor(sound[0].numpy(), sampling_rate=48_000, return_tensors="pt")
    found = _encoder(sample_rate_hz=48_000).spectrogram(sound)
    torch.testing.assert_close(found, expected["input_features"], atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_sounds_have_the_librarys_features() -> None:
    encoder = _encoder()
    sounds = 0.3 * torch.randn(2, 16_000)
    expected = _published(encoder).get_audio_features(encoder.spectrogram(sounds)).pooler_output
    torch.testing.assert_close(encoder.embed(sounds), normalize(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_context_is_one_token() -> None:
    assert _encoder()(torch.randn(3, 8000)).shape == (3, 1, 24)


@torch.no_grad()
def test_a_longer_sound_is_cut() -> None:
    encoder, sound = _encoder(sample_rate_hz=48_000), torch.randn(1, 60_000)
    torch.testing.assert_close(encoder(sound), encoder(sound[:, :48_000]))


@torch.no_grad()
def test_a_prompt_does_not_depend_on_its_batch_in_training() -> None:
    encoder, sounds = _encoder().train(), torch.randn(4, 16_000)
    statistics = encoder.tower.audio_encoder.batch_norm.running_mean.clone()
    torch.testing.assert_close(encoder(sounds)[:1], encoder(sounds[:1]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.tower.audio_encoder.batch_norm.running_mean, statistics)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(16_000, 48_000), (48_000, 16_000)])
def test_a_tone_is_the_same_tone_at_another_rate(from_hz: int, to_hz: int) -> None:
    def tone(rate_hz: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440.0 * torch.arange(rate_hz).double() / rate_hz)[None]

    torch.testing.assert_close(
        resample(tone(from_hz), from_hz, to_hz), tone(to_hz), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("from_hz", "to_hz"), [(16_000, 48_000), (48_000, 16_000)])
def test_windowed_interpolation_keeps_a_tone_away_from_the_ends(from_hz: int, to_hz: int) -> None:
    def tone(rate_hz: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440.0 * torch.arange(rate_hz).double() / rate_hz)[None]

    found = resample_windowed(tone(from_hz), from_hz, to_hz)
    assert found.shape == (1, to_hz)
    torch.testing.assert_close(found[:, 500:-500], tone(to_hz)[:, 500:-500], atol=5e-3, rtol=0)


def test_windowed_interpolation_is_linear_and_shifts_with_the_sound() -> None:
    sound = torch.randn(1, 400, dtype=torch.float64)
    late = torch.nn.functional.pad(sound, (50, 0))
    found = resample_windowed(late, 16_000, 48_000)
    expected = resample_windowed(sound, 16_000, 48_000)
    torch.testing.assert_close(found[:, 150 + 100 : -100], expected[:, 100:-100])


@torch.no_grad()
def test_published_weights_are_loaded_from_a_folder(tmp_path: Path) -> None:
    encoder, sound = _encoder(), torch.randn(1, 16_000)
    _published(encoder).save_pretrained(tmp_path)
    loaded = _encoder(pretrained=str(tmp_path))
    torch.testing.assert_close(loaded.embed(sound), encoder.embed(sound))


@torch.no_grad()
def test_another_context_width_gets_a_projection_of_its_own(tmp_path: Path) -> None:
    encoder, sound = _encoder(), torch.randn(1, 16_000)
    _published(encoder).save_pretrained(tmp_path)
    wider = _encoder(pretrained=str(tmp_path), context_width=40)
    assert wider(sound).shape == (1, 1, 40)
    mel = encoder.spectrogram(sound)
    torch.testing.assert_close(wider.tower(mel).pooler_output, encoder.tower(mel).pooler_output)


def test_published_weights_of_other_sizes_are_an_error(tmp_path: Path) -> None:
    _published(_encoder()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has depths = \[1, 1\], and this preset \[1, 2\]"):
        _encoder(pretrained=str(tmp_path), depths=(1, 2))


def test_on_the_meta_device_nothing_is_loaded() -> None:
    with torch.device("meta"):
        encoder = dataclasses.replace(CONFIG, pretrained="no/such/folder").build()
    assert all(p.is_meta for p in encoder.parameters())


def test_a_missing_library_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'codi\[external\]'"):
        CONFIG.build()
