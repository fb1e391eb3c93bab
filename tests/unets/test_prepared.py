"""Prepared prompts: the same prediction, for every diffuser of every preset at a reduced size."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from codi.build import load_config
from codi.nn.embedding import StepEmbedding
from codi.nn.packing import pack
from codi.unets.reuse import DeepFeatures
from codi.unets.text_unet import TextUNet, TextUNetConfig
from codi.unets.unet import UNet, UNetConfig
from tests.small import SHIPPED, awake

CASES = [
    (preset, name)
    for preset in SHIPPED
    for name, table in load_config(preset).diffusers.items()
    if table.get("kind") in ("unet", "text_unet")
]
every = pytest.mark.parametrize(("preset", "name"), CASES)
lengths = pytest.mark.parametrize("tokens", [1, 5])


def _narrow(config: UNetConfig) -> UNetConfig:
    changes: dict[str, Any] = {"channels": 16, "context_width": 8, "groups": 8}
    changes |= {"head_channels": 8, "heads": None, "environment_width": 6}
    if config.temporal is not None and config.temporal.heads is not None:
        changes["temporal"] = dataclasses.replace(config.temporal, heads=2)
    if config.latent_channels == config.channels:  # a sentence's
        changes["latent_channels"] = 16
    return dataclasses.replace(config, **changes)


def _reduced(preset: str, name: str) -> tuple[UNet | TextUNet, Tensor]:
    """Return a diffuser of a preset with few channels, and latents of two samples for it."""
    config = load_config(preset).part("diffusers", name)
    if isinstance(config, TextUNetConfig):
        config = dataclasses.replace(config, latent_width=12, unet=_narrow(config.unet))
        return awake(config.build()).eval(), torch.randn(2, 12)
    frames = 3 if config.time_axis == "frame" else 1
    return awake(_narrow(config).build()).eval(), torch.randn(
        2, config.latent_channels, frames, 8, 8
    )


def _given(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor([3, 700]), torch.randn(2, tokens, 8), torch.randn(2, 4, 6)


@every
@lengths
@torch.no_grad()
def test_a_prepared_prompt_predicts_the_same(preset: str, name: str, tokens: int) -> None:
    unet, z = _reduced(preset, name)
    t, context, environment = _given(tokens)
    prepared = unet.prepare(context)
    assert unet(z, t, context).any()
    for beside in (None, environment):
        assert torch.equal(unet(z, t, prepared, beside), unet(z, t, context, beside))


@every
@torch.no_grad()
def test_steps_that_it_was_prepared_for_predict_the_same(preset: str, name: str) -> None:
    unet, z = _reduced(preset, name)
    _, context, environment = _given(5)
    prepared = unet.prepare(context, [900, 3])
    embeddings = []
    for step in unet.modules():
        if isinstance(step, StepEmbedding):
            step.register_forward_hook(lambda *_: embeddings.append(1))
    predicted = []
    for t in (3, 900, 40):
        given = torch.tensor([t, t])
        expected = unet(z, given, context, environment)
        predicted.append(expected)
        before = len(embeddings)
        made = unet(z, given, prepared.at(t), environment)
        assert len(embeddings) - before == (t == 40)  # the only one that it was not prepared for
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(predicted[0], predicted[1], atol=1e-4)


@every
@lengths
@torch.no_grad()
def test_a_sample_of_a_prepared_batch_is_that_of_its_own(
    preset: str, name: str, tokens: int
) -> None:
    unet, z = _reduced(preset, name)
    t, context, _ = _given(tokens)
    alone = unet(z[:1], t[:1], context[:1])
    for prepared in (unet.prepare(context), unet.prepare(context, [int(t[0])]).at(int(t[0]))):
        some = unet(z[:1], t[:1], prepared.first(1))
        torch.testing.assert_close(some, alone, atol=1e-4, rtol=1e-4)


@every
@torch.no_grad()
def test_reused_features_and_packed_weights_take_it_too(preset: str, name: str) -> None:
    unet, z = _reduced(preset, name)
    t, context, environment = _given(5)
    expected = [unet(z, t, context, environment, d) for d in [DeepFeatures(2)] for _ in range(2)]
    pack(unet)
    prepared, deep = unet.prepare(context), DeepFeatures(2)
    for before in expected:
        after = unet(z, t, prepared, environment, deep)
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert (deep.computed, deep.reused) == (1, 1)


@every
@lengths
def test_gradients_are_those_of_the_plain_prompt(preset: str, name: str, tokens: int) -> None:
    unet, z = _reduced(preset, name)
    t, context, _ = _given(tokens)
    found = []
    for read in (lambda x: x, unet.prepare):
        prompt = context.clone().requires_grad_()
        unet.zero_grad()
        unet(z, t, read(prompt)).square().sum().backward()
        weights = [p.grad for p in unet.parameters() if p.grad is not None]
        found.append([prompt.grad, *weights])
    torch.testing.assert_close(*found)
