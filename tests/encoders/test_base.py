"""Prompt encoders: one space for all modalities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codi.build import Model
from codi.encoders.base import PromptEncoder
from codi.types import Media
from tests.small import NAMES, SENTENCE, objects, small_config, small_model


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model(parts=small_config().parts(("encoders",)))


def _medium(name: str, size: int) -> Media:
    media = small_config().media(name)
    return media.to_tensor([media.to_array(objects()[name])] * size)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_embedding_has_unit_length(model: Model, name: str) -> None:
    embedding = model.encoder(name).embed(_medium(name, 2))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_context_is_one_token(model: Model, name: str) -> None:
    assert model.encoder(name)(_medium(name, 3)).shape == (3, 1, 32)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_calibrated_contexts_are_centred(name: str) -> None:
    encoder = small_model(parts=small_config().parts(("encoders",))).encoder(name)
    x = [SENTENCE, "a star"] if name == "text" else torch.randn_like(_medium(name, 4))
    encoder.calibrate([x])
    contexts: Tensor = encoder(x)
    torch.testing.assert_close(contexts.mean(0), torch.zeros(1, 32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_unit_context_is_the_embedding_itself(name: str) -> None:
    encoder = small_model(parts=small_config().parts(("encoders",))).encoder(name)
    x = _medium(name, 2)
    encoder.mean.fill_(0.3)
    assert not encoder.unprompted(x).any()
    encoder.unit_context = True
    assert torch.equal(encoder(x)[:, 0], encoder.embed(x))
    nothing = [""] * 2 if name == "text" else torch.zeros_like(x)
    assert torch.equal(encoder.unprompted(x), encoder(nothing))


@torch.no_grad()
def test_a_context_has_about_unit_variance(model: Model) -> None:
    embedding = torch.nn.functional.normalize(torch.randn(500, 32), dim=1)
    encoder: PromptEncoder = model.encoder("text")
    assert encoder.context(embedding).std().item() == pytest.approx(1.0, abs=0.1)
