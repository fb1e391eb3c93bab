"""TorchScript networks get what they were trained on, and their answers keep their shape."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codi import media
from codi.config import ConfigError
from codi.evaluation.extractors.scripted import SCRIPTS, ScriptedExtractor, vggish_examples
from tests.small import small_config

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class I3D(nn.Module):
    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert rescale
        assert return_features
        assert not resize
        assert x.shape[1:] == (3, 4, 224, 224)
        return x.mean((2, 3, 4))


class C3D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


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
