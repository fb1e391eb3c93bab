"""A learned judge of offsets is given clip and sound at its own rates, and is taken at its word."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codi import media
from codi.config import ConfigError
from codi.evaluation.extractors.offsets import FILE, OffsetExtractor
from tests.small import small_config

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

OFFSETS_S = [-0.48, -0.24, 0.0, 0.24, 0.48]


class Judge(nn.Module):
    """One that knows the offset: it looks for the one bright frame and the one loud instant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets_s", torch.tensor(OFFSETS_S))

    def forward(self, clips: Tensor, waveforms: Tensor) -> Tensor:
        seen_s = clips.mean((1, 3, 4)).argmax(1) / 25.0
        heard_s = waveforms.abs().argmax(1) / 16000.0
        offsets_s = self.offsets_s
        assert isinstance(offsets_s, Tensor)
        return -((heard_s - seen_s)[:, None] - offsets_s).abs()


class Mute(Judge):
    def forward(self, clips: Tensor, waveforms: Tensor) -> Tensor:
        return clips.mean((2, 3, 4))  # three scores for five offsets


class Lost(Judge):
    def forward(self, clips: Tensor, waveforms: Tensor) -> Tensor:
        return waveforms[:, :5] / 0.0 * 0.0


def saved(network: nn.Module, folder: Path) -> str:
    torch.jit.save(torch.jit.script(network), str(folder / FILE))
    return str(folder)


def flash(seen_s: float, heard_s: float, fps: float = 12.5, rate_hz: int = 8000) -> media.Video:
    """Return a dark clip of 2 s with one bright frame, and silence with one click."""
    frames = np.zeros((int(2 * fps), 8, 8, 3), np.uint8)
    frames[round(seen_s * fps)] = 255
    samples = np.zeros(2 * rate_hz, np.float32)
    samples[round(heard_s * rate_hz)] = 1.0
    return media.Video(frames, fps, media.Audio(samples, rate_hz))


@pytest.mark.parametrize("fps", [12.5, 25.0, 50.0])
def test_the_offset_of_a_sound_is_found_at_any_rate(fps: float, tmp_path: Path) -> None:
    extractor = OffsetExtractor(saved(Judge(), tmp_path))
    clips = [flash(0.8, 0.8 + late, fps) for late in (0.0, 0.24, -0.48, 0.25)]
    found = extractor("video", clips)
    assert found["offset_s"].shape == (4, 1)
    np.testing.assert_allclose(found["offset_s"][:, 0], [0.0, 0.24, -0.48, 0.24], rtol=1e-6)


def test_frames_are_held_until_the_next_one_and_the_sound_is_as_long(tmp_path: Path) -> None:
    class Shapes(Judge):
        def forward(self, clips: Tensor, waveforms: Tensor) -> Tensor:
            assert clips.shape[1:] == (3, 50, 8, 8)
            assert waveforms.shape[1] == 32000
            return clips[:, 0, :5, 0, 0]

    clip = flash(0.0, 0.0, fps=10.0)
    clip.frames[:] = np.arange(20, dtype=np.uint8)[:, None, None, None]
    assert clip.audio is not None
    longer = dataclasses.replace(clip, audio=media.Audio(np.zeros(40_000, np.float32), 8000))
    extractor = OffsetExtractor(saved(Shapes(), tmp_path))
    for one in (clip, longer):
        assert extractor._scores([one]).tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0]]


def test_what_it_cannot_look_at_is_refused(tmp_path: Path) -> None:
    extractor = OffsetExtractor(saved(Judge(), tmp_path))
    extractor.try_out(small_config())
    with pytest.raises(ConfigError, match="extractor desync takes video, not audio"):
        extractor("audio", [flash(0.0, 0.0).audio])
    with pytest.raises(ConfigError, match="a clip of 2 s has no sound; name it where video and"):
        extractor("video", [dataclasses.replace(flash(0.0, 0.0), audio=None)])
    video_alone = {n: t for n, t in small_config().modalities.items() if n != "audio"}
    extractor.try_out(dataclasses.replace(small_config(), modalities=video_alone))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Mute(), "answers with 3 scores for 5 offsets; extractor desync wants a row of scores"),
        (Lost(), "scores of noise that are not finite"),
    ],
)
def test_another_network_is_found_before_anything_is_sampled(
    network: nn.Module, message: str, tmp_path: Path
) -> None:
    extractor = OffsetExtractor(saved(network, tmp_path))
    with pytest.raises(ConfigError, match=rf"desync\.pt: .*{message}.* Synchformer") as caught:
        extractor.try_out(small_config())
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_say_its_offsets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"desync\.pt: has no buffer offsets_s of one axis"):
        OffsetExtractor(saved(nn.Linear(2, 2), tmp_path))
