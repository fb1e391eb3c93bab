"""What a request computes of its prompts once, and that sampling is the same with it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import codi.pipeline
from codi.build import Model
from codi.denoiser import JointDenoiser
from codi.nn.readiness import Readiness
from codi.pipeline import Condition, Pipeline, SamplingSettings
from codi.types import Latents
from tests.small import awake_model, latents, small_config

POOLED = "diffusers.vision.pooled_context=true"
STEPS = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return awake_model(POOLED)


def _sample(
    model: Model, *, tokens: int = 3, plain: bool = False, kept: Latents | None = None, **more: Any
) -> Latents:
    """Sample two seeds; with `plain`, prompts are read anew at every step."""
    pipeline = Pipeline(model.config, model=model)
    generator = torch.Generator().manual_seed(5)
    context, against = torch.randn(2, 2, tokens, 32, generator=generator)
    to = [name for name in ("image", "video", "audio", "text") if name not in (kept or {})]
    settings = SamplingSettings(steps=STEPS, **{"guidance": 3.0, **more})
    with _reading_anew() if plain else nullcontext():
        return pipeline.sample(context, to, [1, 2], settings=settings, against=against, kept=kept)


@contextmanager
def _reading_anew() -> Iterator[None]:
    """Let pipelines sample without preparation."""

    def denoiser(*given: Any, prepares: bool) -> JointDenoiser:
        assert prepares
        return dataclasses.replace(JointDenoiser(*given), prepares=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codi.pipeline, "JointDenoiser", denoiser)
        yield


@contextmanager
def _counted(model: Model, *endings: str) -> Iterator[Counter[str]]:
    """Count the calls of the layers of all diffusers whose names end so."""
    calls: Counter[str] = Counter()
    with ExitStack() as hooks:
        for name, layer in model.role("diffusers").named_modules():
            if name.endswith(endings):
                calls[name] = 0
                note = _noting(calls, name)
                hooks.callback(layer.register_forward_hook(note).remove)
        yield calls


def _noting(calls: Counter[str], name: str) -> Any:
    def note(_layer: nn.Module, _given: Any, _made: Any) -> None:
        calls[name] += 1

    return note


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"guidance": 1.0},
        {"guidance": {"image": 1.0, "video": 2.0}},
        {"guidance_interval": (300, 800)},
    ],
    ids=["guided", "unguided", "one guided", "interval"],
)
def test_sampling_is_the_same_as_without(model: Model, tokens: int, more: dict[str, Any]) -> None:
    prepared, plain = (_sample(model, tokens=tokens, plain=p, **more) for p in (False, True))
    for name, z in plain.items():
        torch.testing.assert_close(prepared[name], z, atol=1e-4, rtol=1e-4)


def test_reuse_and_kept_streams_are_the_same_too(model: Model) -> None:
    for more in ({"reuse": 2}, {"kept": latents(model.config, ["video"])}):
        prepared, plain = (_sample(model, plain=p, **more) for p in (False, True))
        for name, z in plain.items():
            torch.testing.assert_close(prepared[name], z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("interval", [None, (300, 800)])
def test_prompts_and_steps_are_projected_once_a_request(
    model: Model, interval: tuple[int, int] | None
) -> None:
    ends = ("cross_attention.to_k", "cross_attention.to_v", "context_embedding")
    steps = ("residual.step",)  # of which all are known beforehand
    for plain in (False, True):
        with _counted(model, *ends, *steps) as calls:
            _sample(model, plain=plain, guidance_interval=interval)
        for end in (*ends, *steps):
            assert any(name.endswith(end) for name in calls)
        for name, count in calls.items():
            # Image and video have one diffuser, and so one preparation.
            streams = 2 if name.startswith("vision") else 1
            assert count == (STEPS * streams if plain else 1)


def test_several_prompts_by_weight_are_the_same(model: Model) -> None:
    pipeline = Pipeline(model.config, model=model)
    prompts = [Condition("text", "a star", 0.7), Condition("text", "a ball", 0.3)]
    context, made = pipeline.context(prompts), []
    for way in (nullcontext, _reading_anew):
        with way():
            settings = SamplingSettings(steps=2)
            made.append(pipeline.sample(context, ["audio"], [1], settings=settings))
    torch.testing.assert_close(*made)


@pytest.mark.parametrize(("recorded", "calls"), [(True, STEPS), (False, 1)])
def test_recorded_networks_take_tensors(
    model: Model, monkeypatch: pytest.MonkeyPatch, recorded: bool, calls: int
) -> None:
    monkeypatch.setattr(Readiness, "records", recorded)
    pipeline = Pipeline(model.config, model=model)  # in memory: none is recorded
    with _counted(model, "context_embedding") as found:
        settings = SamplingSettings(steps=STEPS)
        pipeline.sample(pipeline.empty_context(1), ["image"], [1], settings=settings)
    assert set(found.values()) == {calls}


def test_a_diffuser_that_cannot_prepare_takes_the_prompt(monkeypatch: Any) -> None:
    config = small_config(POOLED)
    model = awake_model(POOLED)
    plain = _sample(model, plain=True)
    for diffuser in model.role("diffusers").values():
        monkeypatch.setattr(type(diffuser), "prepare", None)
    made = _sample(model)
    assert list(made) == [name for name in made if name in config.generated]
    for name, z in made.items():
        assert torch.equal(z, plain[name])
