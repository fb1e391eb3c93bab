"""Kept streams: given, held clean while the others are made around them, and prompts as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codi.build import Model
from codi.pipeline import Pipeline, SamplingSettings, load
from codi.weights import save_model
from tests.small import NAMES, RELEASED, latents, objects, small_config, small_model


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_stream_comes_back_unchanged(pipeline: Pipeline, name: str) -> None:
    given = objects()[name]
    others = [other for other in NAMES if other != name][:1]
    made = pipeline.generate(to=others, keep={name: given}, seeds=[0, 1], steps=2)
    array = small_config().media(name).to_array
    assert list(made) == [*others, name]
    assert len(made[name]) == len(made[others[0]]) == 2
    for item in made[name]:
        assert np.array_equal(array(item), array(given))


def test_a_clip_holds_the_sound_of_its_sample(pipeline: Pipeline) -> None:
    made = pipeline.generate(to=["video", "audio"], seeds=[0, 1], steps=1)
    for clip, sound in zip(made["video"], made["audio"], strict=True):
        assert clip.audio is sound
    kept = pipeline.generate(to=["audio"], keep={"video": objects()["video"]}, steps=1)
    assert kept["video"][0].audio is kept["audio"][0]
    assert pipeline.generate(to=["video"], steps=1)["video"][0].audio is None


def test_a_kept_stream_informs_the_others(pipeline: Pipeline) -> None:
    context, kept = pipeline.context([]), latents(small_config(), ["video"], size=1)["video"]
    settings = SamplingSettings(steps=2)
    one, other = (
        pipeline.sample(context, ["audio"], [1], settings=settings, kept={"video": z})
        for z in (kept, kept + 1.0)
    )
    assert not torch.allclose(one["audio"], other["audio"], atol=1e-4)


def test_a_kept_streams_environment_is_computed_once(pipeline: Pipeline) -> None:
    calls: list[str] = []
    hooks = [
        pipeline.model.part("environments", name).register_forward_hook(
            lambda *_, name=name: calls.append(name)
        )
        for name in ("text", "audio")
    ]
    kept = latents(small_config(), ["text"], size=1)
    settings = SamplingSettings(steps=3)
    pipeline.sample(pipeline.context([]), ["audio"], [1], settings=settings, kept=kept)
    for hook in hooks:
        hook.remove()
    assert (calls.count("text"), calls.count("audio")) == (1, 3)


def test_a_kept_stream_brings_the_diffuser_whose_step_embedding_it_shares(tmp_path: Path) -> None:
    released = small_model(*RELEASED)
    save_model(released, tmp_path)
    pipeline = load(tmp_path, device="cpu")
    kept = latents(released.config, ["video"], size=1)
    made = pipeline.sample(
        pipeline.empty_context(1), ["audio"], [1], settings=SamplingSettings(steps=1), kept=kept
    )
    assert made["audio"].isfinite().all()
    assert set(pipeline.model.role("diffusers")) == {"audio", "vision"}


def test_offloading_drops_the_codec_of_a_kept_stream_before_sampling(
    model: Model, tmp_path: Path
) -> None:
    save_model(model, tmp_path)
    pipeline, seen = load(tmp_path, device="cpu", offload=True), []

    def look(_step: int, _steps: int) -> None:
        seen.append([*pipeline.model.role("codecs"), *pipeline.model.role("encoders")])

    keep = {"image": objects()["image"]}
    made = pipeline.generate(to=["text"], keep=keep, seeds=[0, 1], batch=1, steps=2, callback=look)
    assert seen == [[]] * 4
    assert list(made) == ["text", "image"]


def test_a_kept_stream_is_a_prompt_as_well(pipeline: Pipeline) -> None:
    given = objects()
    made = pipeline.generate(to=["audio"], keep={"image": Image.new("RGB", (9, 9))}, steps=1)
    [note] = made.notes  # what it is read for twice is told once
    assert note.startswith("image: ")
    assert made["image"][0].size == (64, 64)
    plain = pipeline.generate([("image", given["image"])], ["audio"], steps=1)
    kept = pipeline.generate(to=["audio"], keep={"image": given["image"]}, steps=1)
    assert not np.array_equal(plain["audio"][0].samples, kept["audio"][0].samples)
