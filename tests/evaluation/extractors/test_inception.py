"""Inception with random weights: shapes, resizing, wrong files, and the numbers of another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codi.config import ConfigError
from codi.evaluation.extractors.base import file_digest
from codi.evaluation.extractors.inception import (
    WEIGHTS,
    InceptionExtractor,
    InceptionNetwork,
    resized,
)
from tests.evaluation.extractors.keras_inception import KERAS, drawn_network, picture, told

DIVISOR = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / WEIGHTS
    torch.manual_seed(0)
    torch.save(InceptionNetwork(DIVISOR).state_dict(), path)
    return path


def test_pictures_give_features_and_logits(weights: Path) -> None:
    extractor = InceptionExtractor(str(weights.parent), divisor=DIVISOR)
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (80, 40)]
    pictures = [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]
    found = extractor("image", pictures)
    assert found["features"].shape == (2, 2048 // DIVISOR)
    assert found["logits"].shape == (2, 1008)
    alone = extractor("image", pictures[1:])
    np.testing.assert_allclose(found["features"][1:], alone["features"], atol=1e-5)
    assert extractor.identity["sha256"] == file_digest(weights)
    with pytest.raises(ConfigError, match="takes image, not audio"):
        extractor("audio", [])


def test_the_full_network_has_the_published_tensors() -> None:
    with torch.device("meta"):
        tensors = InceptionNetwork().state_dict()
    assert tensors["Mixed_6c.branch7x7dbl_4.conv.weight"].shape == (160, 160, 7, 1)
    assert tensors["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)
    assert tensors["fc.weight"].shape == (1008, 2048)
    counted = sum(t.numel() for n, t in tensors.items() if "running" not in n and "num" not in n)
    assert counted == 23_834_568 + 8 * 2049  # torchvision's with 1000 classes, and 8 classes


def test_resizing_keeps_a_ramp_and_its_corner() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    found = resized(ramp, 16)
    assert found.shape == (1, 1, 16, 16)
    assert found[0, 0, 0, :5].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert found[0, 0, 0, -1] == 7.0
    assert torch.equal(resized(ramp, 8), ramp)


def test_what_is_missing_or_wrong_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no file .*{WEIGHTS}"):
        InceptionExtractor(str(tmp_path))
    with pytest.raises(ConfigError, match="another shape of Conv2d_1a"):
        InceptionExtractor(str(weights))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="lacks Conv2d_1a"):
        InceptionExtractor(str(tmp_path / "other.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigError, match="no file of weights"):
        InceptionExtractor(str(tmp_path / "text.pth"))


def test_every_block_computes_what_keras_does() -> None:
    found: dict[str, torch.Tensor] = {}
    network = drawn_network()
    for name in KERAS:
        block = network.get_submodule(name)
        block.register_forward_hook(lambda _m, _x, y, name=name: found.update({name: y}))
    with torch.no_grad():
        network(picture())
    for name, wanted in KERAS.items():
        assert told(found[name]) == pytest.approx(wanted, abs=2e-4), name
