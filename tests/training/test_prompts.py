"""What diffusers are prompted with in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from codi.config import ConfigError, build
from codi.data.batches import Batch
from codi.data.source import Caption
from codi.training.prompts import PromptConfig, draw_contexts, prompt_media
from codi.training.recipe import Objective
from codi.training.task import Draws
from tests.small import awake_model, small_config
from tests.training.conftest import Batches

MODEL = awake_model(parts=small_config().parts(("encoders",)))


@pytest.fixture
def batch(batch_for: Batches) -> Batch:
    settings = {"modality": "image", "captions": ["image"], "prompts": {"shares": {"image": 1.0}}}
    return batch_for(Objective("denoise", {}, settings).build(MODEL, "test"))


def _contexts(batch: Batch, config: PromptConfig, seed: int = 0) -> Tensor:
    draws = Draws(torch.Generator().manual_seed(seed))
    return draw_contexts(MODEL, batch, batch.texts, config, draws, ("image",))


@pytest.mark.parametrize("name", ["text", "image"])
@torch.no_grad()
def test_a_prompt_is_what_its_encoder_says(batch: Batch, name: str) -> None:
    contexts = _contexts(batch, PromptConfig({name: 1.0}, drop=0.0))
    x = batch.texts if name == "text" else batch.media[name]
    torch.testing.assert_close(contexts, MODEL.encoder(name)(x))


@torch.no_grad()
def test_each_sample_has_the_prompt_that_was_drawn_for_it(batch: Batch) -> None:
    contexts = _contexts(batch, PromptConfig({"text": 0.5, "image": 0.5}, drop=0.0))
    choices = [MODEL.encoder("text")(batch.texts), MODEL.encoder("image")(batch.media["image"])]
    chosen = [
        next(k for k, c in enumerate(choices) if torch.allclose(contexts[i], c[i], atol=1e-5))
        for i in range(len(batch))
    ]
    assert set(chosen) == {0, 1}


def test_a_dropped_prompt_is_the_empty_context(batch: Batch) -> None:
    assert not _contexts(batch, PromptConfig(drop=1.0, noise=0.3)).any()


def test_prompts_are_dropped_as_often_as_asked_for(batch: Batch) -> None:
    dropped = torch.cat(
        [~_contexts(batch, PromptConfig(drop=0.5), seed).flatten(1).any(1) for seed in range(60)]
    )
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_mixing_and_noise_change_contexts(batch: Batch) -> None:
    plain = _contexts(batch, PromptConfig(drop=0.0))
    noisy = _contexts(batch, PromptConfig(drop=0.0, noise=0.1))
    assert (noisy - plain).std().item() == pytest.approx(0.1, abs=0.03)
    mixed = _contexts(batch, PromptConfig(drop=0.0, mix=1.0))
    assert not torch.allclose(mixed, plain, atol=1e-4)


@torch.no_grad()
def test_a_picture_is_mixed_with_what_is_said_of_a_sound(batch: Batch) -> None:
    shown = MODEL.encoder("image")(batch.media["image"])
    batch.write_captions = lambda told, complete=0.0: [  # type: ignore[method-assign, assignment]
        Caption(f"{'+'.join(told)} {complete:g}", None) for _ in batch.records
    ]
    config = PromptConfig({"image": 1.0}, drop=0.0, mix=1.0, mix_captions=("audio",))
    draws = Draws(torch.Generator().manual_seed(0))
    mixed = draw_contexts(MODEL, batch, batch.texts, config, draws, ("image",), 0.9)
    said = MODEL.encoder("text")(["audio 0.9"] * len(batch))
    weight = ((mixed - said) / (shown - said)).flatten(1).median(1).values
    assert ((weight >= 0.3) & (weight <= 0.7)).all()
    rebuilt = weight[:, None, None] * shown + (1 - weight[:, None, None]) * said
    torch.testing.assert_close(mixed, rebuilt, atol=1e-4, rtol=1e-3)


def test_prompts_that_are_mixed_take_the_encoder_of_captions() -> None:
    assert PromptConfig({"image": 1.0}).encoded == ("image",)
    assert PromptConfig({"image": 1.0}, mix=0.1).encoded == ("image", "text")


@pytest.mark.parametrize(
    ("kind", "streams"),
    [("denoise", {"modality": "audio"}), ("joint", {"streams": ["audio", "text"]})],
)
def test_captions_to_mix_tell_as_much_as_the_objective_says(
    batch_for: Batches, kind: str, streams: dict[str, Any]
) -> None:
    prompts = {"shares": {"text": 1.0}, "mix": 1.0, "mix_captions": ["video"]}
    settings = {**streams, "captions": ["audio"], "complete": 0.9, "prompts": prompts}
    task = Objective(kind, {}, settings).build(awake_model(), "test")
    batch, asked = batch_for(task), []

    def writing(shown_by: Sequence[str], complete: float = 0.0) -> list[Caption]:
        asked.append((tuple(shown_by), complete))
        return [Caption("a thing", None) for _ in batch.records]

    batch.write_captions = writing  # type: ignore[method-assign]
    task.losses(batch, Draws(torch.Generator().manual_seed(0)))
    assert set(asked) == {(("video",), 0.9)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mix": 7.0}, "mix is 7; give a share"),
        ({"drop": -0.1}, "drop is -0.1; give a share"),
        ({"mix_captions": ["audio"]}, "of no use with mix = 0"),
        ({"mix": 0.5, "mix_captions": ["adio"]}, "did you mean 'audio'"),
        ({"shares": {"imge": 1.0}}, "did you mean 'image'"),
        ({"bridge": "image"}, "bridge is image"),
    ],
)
def test_wrong_prompts_are_found_before_the_training(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(PromptConfig, table, "prompts")


def test_prompts_are_mixed_with_some_captions(batch: Batch) -> None:
    draws = Draws(torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="mixed with no captions"):
        draw_contexts(MODEL, batch, batch.texts, PromptConfig(mix=0.5), draws)


def test_prompts_of_nothing_are_an_error(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="prompts name no modality; give shares"):
        _contexts(batch, PromptConfig({}))


def test_only_prompts_that_are_not_captions_need_media() -> None:
    assert prompt_media(PromptConfig({"text": 0.5, "image": 0.5})) == ("image",)


def test_prompt_encoders_get_no_gradient(batch: Batch) -> None:
    assert not _contexts(batch, PromptConfig()).requires_grad
