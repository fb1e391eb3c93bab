"""TorchScript networks get what they were trained on, and their answers keep their shape."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codi import media
from codi.config import ConfigError
from codi.evaluation.extractors.base import waveforms_of
from codi.evaluation.extractors.scripted import SCRIPTS, ScriptedExtractor, vggish_examples
from codi.evaluation.metrics.classes import inception_score
from tests.small import small_config

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class I3D(nn.Module):
    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert rescale
        assert return_features
        assert resize  # by the file's own rules, not by others
        assert x.shape[1:] == (3, 4, 16, 16)
        return x.mean((2, 3, 4))


class C3D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


class Classes(nn.Module):
    """One that resizes itself, as the published C3D does, and ends in a softmax or before it."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[3:] == (16, 16)
        scores = 0.05 * (x.mean((2,)).flatten(1)[:, ::7] - 128.0)
        return scores.softmax(1) if self.softmax else scores


class VGGish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, 96, 64)
        return x.mean((1, 2))


class PANNs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :5], x[:, :2]


NETWORKS: dict[str, nn.Module] = {"i3d": I3D(), "c3d": C3D(), "vggish": VGGish(), "panns": PANNs()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for name, network in NETWORKS.items():
        torch.jit.save(torch.jit.script(network), str(folder / SCRIPTS[name].file))
    return folder


def objects(name: str, count: int = 2) -> list:
    rng = np.random.default_rng(0)
    if SCRIPTS[name].modality == "video":
        shape = (count, 4, 16, 16, 3)
        return [media.Video(f, 8.0) for f in rng.integers(0, 256, shape, dtype=np.uint8)]
    sounds = rng.uniform(-0.5, 0.5, (count, 32_000)).astype(np.float32)
    return [media.Audio(s, 16_000) for s in sounds]


@pytest.mark.parametrize(
    ("name", "features", "logits"),
    [
        ("i3d", (2, 3), (2, 3)),
        ("c3d", (2, 3), (2, 3)),
        ("vggish", (2, 2, 64), (2, 2, 64)),
        ("panns", (2, 5), (2, 2)),
    ],
)
def test_answers(folder: Path, name: str, features: tuple, logits: tuple) -> None:
    extractor = ScriptedExtractor(name, str(folder))
    found = extractor(SCRIPTS[name].modality, objects(name))
    assert found["features"].shape == features
    assert found["logits"].shape == logits
    with pytest.raises(ConfigError, match="not text"):
        extractor("text", ["a"])


def test_pixels_go_from_0_to_255(folder: Path) -> None:
    white = [media.Video(np.full((4, 16, 16, 3), 255, np.uint8), 8.0)]
    found = ScriptedExtractor("c3d", str(folder))("video", white)
    np.testing.assert_allclose(found["features"], 255.0, rtol=1e-5)


def test_a_classifier_scores_the_same_with_its_softmax_and_without(tmp_path: Path) -> None:
    found = []
    for softmax in (False, True):
        folder = tmp_path / str(softmax)
        folder.mkdir()
        torch.jit.save(torch.jit.script(Classes(softmax)), str(folder / SCRIPTS["c3d"].file))
        clips = objects("c3d", count=30)
        found.append(ScriptedExtractor("c3d", str(folder))("video", clips)["logits"])
    scores, probabilities = found
    assert not np.allclose(scores, probabilities)
    assert inception_score(scores) > 3.0
    assert inception_score(probabilities) == pytest.approx(inception_score(scores), rel=1e-4)


class Tuned(nn.Module):
    """One that says for which rate it is, and how many samples it was given."""

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__()
        self.register_buffer("sample_rate_hz", torch.tensor(sample_rate_hz))

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 1), float(x.shape[1]))


def test_a_file_says_for_which_rate_it_is(folder: Path, tmp_path: Path) -> None:
    usual = ScriptedExtractor("panns", str(folder))
    assert usual.identity["preprocessing"] == "32 kHz waveforms"
    path = tmp_path / SCRIPTS["panns"].file
    torch.jit.save(torch.jit.script(Tuned(16_000)), str(path))
    slower = ScriptedExtractor("panns", str(path))
    assert slower.identity["preprocessing"] == "16 kHz waveforms"
    assert slower("audio", objects("panns"))["features"].tolist() == [[32_000.0], [32_000.0]]
    torch.jit.save(torch.jit.script(Tuned(44_100)), str(path))
    with pytest.raises(ConfigError, match=r"cnn14\.pt: its sample_rate_hz is 44100; .* 32000 or"):
        ScriptedExtractor("panns", str(path))


class Published(nn.Module):
    """Of the form of PANNs' Cnn14: a dict, and a sigmoid over the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc_audioset = nn.Linear(16, 8), nn.Linear(8, 527)

    def forward(self, input: Tensor, mixup_lambda: Tensor | None = None) -> dict[str, Tensor]:
        x = torch.relu(self.fc1(input.unfold(1, 16, 16).abs().mean(1)))
        x = torch.dropout(x, 0.5, self.training)
        return {"clipwise_output": torch.sigmoid(self.fc_audioset(x)), "embedding": x}


def test_the_recipe_for_panns_writes_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs/howto/evaluate.md"
    (recipe,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if "panns_cnn14.pt" in block
    )
    network = Published()
    monkeypatch.chdir(tmp_path)
    exec(recipe, {"network": network})
    extractor = ScriptedExtractor("panns", str(tmp_path))
    extractor.try_out(small_config())
    for seconds in (1, 3):  # a trace must not hold the length of its example
        sounds = [media.Audio(s.samples[: seconds * 8000], 16_000) for s in objects("panns")]
        found = extractor("audio", sounds)
        assert {kind: rows.shape for kind, rows in found.items()} == {
            "features": (2, 8),
            "logits": (2, 527),
        }
        answer = network(waveforms_of(sounds, 32_000))
        logits = torch.from_numpy(found["logits"])
        torch.testing.assert_close(torch.sigmoid(logits), answer["clipwise_output"])
        torch.testing.assert_close(torch.from_numpy(found["features"]), answer["embedding"])


def test_vggish_hears_tones_where_they_are() -> None:
    t = torch.arange(32_000) / 16_000
    low, high = (
        vggish_examples(0.5 * torch.sin(2 * torch.pi * hz * t)[None]) for hz in (300, 4000)
    )
    assert low.shape == (1, 2, 1, 96, 64)
    # Band i is centred on mel(125) + (i + 1) / 65 of the way to mel(7500).
    mel = [1127.0 * np.log1p(hz / 700.0) for hz in (125.0, 300.0, 4000.0, 7500.0)]
    for found, at in ((low, mel[1]), (high, mel[2])):
        band = 65.0 * (at - mel[0]) / (mel[3] - mel[0]) - 1.0
        assert abs(int(found[0, 0, 0, 40].argmax()) - band) <= 1.0
    silence = vggish_examples(torch.zeros(1, 100))
    assert silence.shape[1] == 1
    torch.testing.assert_close(silence, torch.full_like(silence, float(np.log(0.01))))


def test_vggishs_spectrogram_is_that_of_another_implementation() -> None:
    """Triangles straight in mel and frames without padding, by the library of `transformers`."""
    audio = pytest.importorskip("transformers.audio_utils", reason="needs the extra external")
    bands = audio.mel_filter_bank(257, 64, 125.0, 7500.0, 16_000, triangularize_in_mel_space=True)
    bands[0] = 0.0  # as VGGish: no band hears a constant
    sound = np.random.default_rng(0).normal(0.0, 0.1, 32_000)
    mel = audio.spectrogram(
        sound,
        audio.window_function(400, "hann"),
        *(400, 160, 512),
        center=False,
        mel_filters=bands,
        dtype=np.float64,
    )
    found = vggish_examples(torch.from_numpy(sound).float()[None])[0, :, 0].flatten(0, 1)
    np.testing.assert_allclose(found, np.log(mel.T[:192] + 0.01), atol=1e-4)


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*i3d_torchscript\.pt"):
        ScriptedExtractor("i3d", str(tmp_path))
    (tmp_path / "vggish.pt").write_text("hello")
    with pytest.raises(ConfigError, match=r"is no TorchScript file; .* VGGish"):
        ScriptedExtractor("vggish", str(tmp_path))


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"embedding": x}


class Short(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] > 10_000_000, "too short"
        return x


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4] / 0.0 * 0.0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Named(), "answers with dict, not tensors"),
        (Short(), "fails with: .*too short"),
        (Whole(), r"answers with shape \(\)"),
        (Nothing(), "features of noise that are not finite"),
    ],
)
def test_another_network_is_found_before_anything_is_sampled(
    network: nn.Module, message: str, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.script(network), str(tmp_path / "panns_cnn14.pt"))
    extractor = ScriptedExtractor("panns", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"panns_cnn14\.pt: .*{message}.* Cnn14") as caught:
        extractor.try_out(small_config())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vggish", "panns", "c3d"])
def test_a_network_that_answers_may_look(folder: Path, name: str) -> None:
    ScriptedExtractor(name, str(folder)).try_out(small_config())
    media_of = dict(small_config().modalities)
    del media_of[SCRIPTS[name].modality]
    mute = dataclasses.replace(small_config(), modalities=media_of)
    ScriptedExtractor(name, str(folder)).try_out(mute)
