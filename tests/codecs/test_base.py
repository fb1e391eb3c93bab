"""The contract of codecs: latents of unit variance, and a way back."""

from __future__ import annotations

import pytest
import torch

from codi.codecs.base import Codec
from codi.types import Media
from tests.small import NAMES, SENTENCE, small_config, small_model


def _sample(name: str, size: int = 3) -> Media:
    shapes = {
        "image": (size, 3, 1, 64, 64),
        "video": (size, 3, 16, 64, 64),
        "audio": (size, 32_000),
    }
    if name == "text":
        return [f"{SENTENCE} {i}" for i in range(size)]
    return torch.rand(shapes[name]) * 2 - 1


@pytest.fixture(scope="module")
def codecs() -> dict[str, Codec]:
    model = small_model(parts=small_config().parts(("codecs",)))
    return {name: model.codec(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_latent_has_the_shape_that_the_preset_says(codecs: dict[str, Codec], name: str) -> None:
    z = codecs[name].encode(_sample(name))
    assert z.shape == (3, *small_config().modality(name).latent)


@pytest.mark.parametrize("name", ["image", "video", "audio"])
@torch.no_grad()
def test_decoding_gives_back_the_shape(codecs: dict[str, Codec], name: str) -> None:
    x = _sample(name)
    decoded = codecs[name].decode(codecs[name].encode(x))
    assert isinstance(decoded, torch.Tensor)
    assert decoded.shape == x.shape


@torch.no_grad()
def test_decoding_text_gives_sentences(codecs: dict[str, Codec]) -> None:
    decoded = codecs["text"].decode(torch.randn(3, 16))
    assert len(decoded) == 3
    assert all(isinstance(text, str) for text in decoded)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_calibrated_latents_have_zero_mean_and_unit_variance(name: str) -> None:
    codec = small_model(parts=small_config().parts(("codecs",), [name])).codec(name)
    batches = [_sample(name, size=8) for _ in range(2)]
    codec.calibrate(batches)
    z = torch.cat([codec.encode(x) for x in batches]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(len(z)), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(1), torch.ones(len(z)), atol=1e-3, rtol=0)


@torch.no_grad()
def test_denormalise_undoes_normalise(codecs: dict[str, Codec]) -> None:
    codec = codecs["image"]
    codec.shift.copy_(torch.randn(4))
    codec.scale.copy_(torch.rand(4) + 0.5)
    raw = torch.randn(2, 4, 1, 4, 4)
    torch.testing.assert_close(codec.denormalise(codec.normalise(raw)), raw)


@torch.no_grad()
def test_a_fixed_scale_is_neither_measured_nor_stored() -> None:
    codec = small_model("codecs.image.scale_factor=0.18215", parts=["codecs.image"]).codec("image")
    raw = torch.randn(2, 4, 1, 4, 4)
    codec.calibrate([_sample("image")])
    torch.testing.assert_close(codec.normalise(raw), 0.18215 * raw)
    torch.testing.assert_close(codec.denormalise(codec.normalise(raw)), raw)
    assert not {"shift", "scale"} & set(codec.state_dict())


@torch.no_grad()
def test_a_channel_that_never_varies_does_not_divide_by_zero(codecs: dict[str, Codec]) -> None:
    codec = small_model(parts=["codecs.image"]).codec("image")
    codec.calibrate([torch.zeros(2, 3, 1, 64, 64)])
    assert torch.isfinite(codec.encode(torch.zeros(1, 3, 1, 64, 64))).all()
