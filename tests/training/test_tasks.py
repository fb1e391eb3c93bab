"""Every objective: its loss falls on one batch, what it trains moves, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codi.build import Model
from codi.config import ConfigError
from codi.training.denoise import draw_steps
from codi.training.parameters import Trainable, select_parameters
from codi.training.recipe import TASKS, Objective
from codi.training.task import Draws, Task
from tests.small import awake_model, small_config
from tests.training.conftest import Batches

PROMPTS = {"shares": {"text": 0.7, "image": 0.3}, "mix": 0.5, "noise": 0.1}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "reconstruct image": ("reconstruct", {"modality": "image"}),
    "reconstruct audio": ("reconstruct", {"modality": "audio"}),
    "reconstruct text": ("reconstruct", {"modality": "text", "captions": ["video"]}),
    "vocode": ("vocode", {"columns": 32}),
    "align image": (
        "align",
        {"modality": "image", "union": 0.5, "words": 0.5, "vocabulary": ["image", "audio"]},
    ),
    "align audio": ("align", {"modality": "audio"}),
    "align video": ("align", {"modality": "video", "union": 0.3}),
    "attract video": ("align", {"modality": "video", "attract": 4.0}),
    "align directly": ("align", {"modality": "audio", "bridge": "image"}),
    "denoise text": ("denoise", {"modality": "text", "captions": ["video", "audio"]}),
    "denoise image": ("denoise", {"modality": "image", "captions": ["image"], "prompts": PROMPTS}),
    "denoise video": ("denoise", {"modality": "video", "captions": ["video"]}),
    "denoise audio": (
        "denoise",
        {"modality": "audio", "captions": ["audio"], "weight": "min_snr"},
    ),
    "joint image text": (
        "joint",
        {"streams": ["image", "text"], "captions": ["image"], "truncate": True},
    ),
    "joint audio text": (
        "joint",
        {"streams": ["audio", "text"], "captions": ["audio"], "timesteps": "shared"},
    ),
    "joint video audio": (
        "joint",
        {"streams": ["video", "audio"], "captions": ["video", "audio"], "prompts": PROMPTS},
    ),
    "joint all": (
        "joint",
        {"streams": ["text", "video", "audio"], "captions": ["video"], "contrast": 0.0},
    ),
}


def _task(case: str) -> Task:
    """Return the task of a case on a model of the parts it names."""
    name, settings = CASES[case]
    objective = Objective(name, {}, settings)
    parts = objective.build(Model(small_config(), []), "test").parts
    return objective.build(awake_model(parts=parts), "test")


def _chosen(task: Task) -> dict[str, nn.Parameter]:
    return select_parameters(Trainable(task.model, [task]), task.default_train, "test")


def _draws() -> Draws:
    return Draws(torch.Generator().manual_seed(5))


def _total(task: Task, batch: Any) -> Tensor:
    batch.rng.bit_generator.state = type(batch.rng.bit_generator)(7).state
    return torch.stack(list(task(batch, _draws()).values())).sum()


@pytest.mark.parametrize("case", CASES)
def test_the_loss_falls_on_one_batch(case: str, batch_for: Batches) -> None:
    task = _task(case)
    batch, chosen = batch_for(task), _chosen(task)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    optimiser = torch.optim.AdamW(chosen.values(), lr=3e-3)
    first = _total(task, batch).item()
    for _ in range(8):
        optimiser.zero_grad()
        _total(task, batch).backward()
        optimiser.step()
    assert _total(task, batch).item() < 0.98 * first

    moved = {
        name.removeprefix("model.")
        for name, value in task.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved <= set(chosen)  # what is frozen stays as it is, bit for bit

    def parts(names: Any) -> set[str]:
        return {".".join(name.split(".")[:2]) for name in names}

    assert parts(moved) == parts(chosen)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_a_function_of_batch_and_draws(case: str, batch_for: Batches) -> None:
    task = _task(case)
    first, second = (task(batch_for(task), _draws()) for _ in range(2))
    assert first == second
    assert all(torch.isfinite(value) for value in first.values())


@pytest.mark.parametrize("case", CASES)
def test_a_task_needs_no_part_but_those_it_names(case: str) -> None:
    task = _task(case)
    assert {
        f"{role}.{name}"
        for role in ("codecs", "encoders", "environments", "diffusers")
        for name in task.model.role(role)
    } == set(task.parts)


def test_every_task_is_tested() -> None:
    assert {name for name, _ in CASES.values()} == set(TASKS)


def test_a_codec_without_a_vocoder_cannot_be_vocoded() -> None:
    with pytest.raises(ConfigError, match="test: the codec of image has no vocoder to train"):
        Objective("vocode", {}, {"modality": "image"}).build(awake_model(), "test")


def test_crops_are_long_enough_for_the_vocoders_loss(batch_for: Batches) -> None:
    with pytest.raises(ConfigError, match=r"test: columns = 3: .*; give 4 or more"):
        Objective("vocode", {}, {"columns": 3}).build(awake_model(), "test")
    task = Objective("vocode", {}, {"columns": 4}).build(awake_model(), "test")
    assert torch.isfinite(task(batch_for(task), _draws())["spectral"])


def test_an_unknown_weighting_names_the_nearest() -> None:
    for name in ("denoise", "joint"):
        _, settings = CASES["denoise audio" if name == "denoise" else "joint all"]
        with pytest.raises(ConfigError, match="unknown weight 'min_snrr'; did you mean 'min_snr'"):
            Objective(name, {}, settings | {"weight": "min_snrr"}).config("test")


def test_attraction_pulls_to_the_caption_that_tells_all(batch_for: Batches) -> None:
    task = _task("attract video")
    batch = batch_for(task)
    term = task(batch, _draws())["attract"]
    batch = batch_for(task)
    said = batch.write_captions(("video",), complete=1.0)
    text, video = (task.model.encoder(name) for name in ("text", "video"))
    apart = text.embed([x.text for x in said]) - video.embed(batch.media["video"])
    torch.testing.assert_close(term, 4.0 * apart.square().sum(-1).mean())
    assert "attract" not in _task("align video")(batch_for(_task("align video")), _draws())


def test_only_captions_can_be_attracted_to() -> None:
    for term in ("attract", "union", "words"):
        settings = {"modality": "audio", "bridge": "image", term: 1.0}
        with pytest.raises(ConfigError, match="bridge is image; union, attract and words"):
            Objective("align", {}, settings).config("test")


def test_steps_are_uniform_or_favour_an_end() -> None:
    for noisier, mean in ((1.0, 500), (3.0, 750), (0.5, 333)):
        t = draw_steps(_draws(), 4000, 1000, noisier).float()
        assert t.mean().item() == pytest.approx(mean, abs=15)
        assert t.min() >= 1
        assert t.max() <= 1000
    with pytest.raises(ConfigError, match=r"noisier is 0; give 1 \(uniform\), less or more"):
        Objective("denoise", {}, CASES["denoise video"][1] | {"noisier": 0.0}).config("test")


@pytest.mark.parametrize("case", ["reconstruct image", "reconstruct text"])
def test_a_codec_is_calibrated_at_the_end(case: str, batch_for: Batches) -> None:
    task = _task(case)
    codec = task.model.codec("image" if case.endswith("image") else "text")
    before = codec.scale.clone()
    task.finish(lambda: [batch_for(task)])
    assert not torch.equal(codec.scale, before)


def test_encoders_that_were_trained_or_never_measured_are_calibrated(batch_for: Batches) -> None:
    task = _task("align audio")
    _chosen(task)
    task.finish(lambda: [batch_for(task)])
    assert task.model.encoder("audio").mean.any()
    assert task.model.encoder("text").mean.any()  # such as a published encoder, used as it is


def test_frozen_encoders_that_were_measured_keep_their_mean(batch_for: Batches) -> None:
    task = _task("align audio")
    _chosen(task)
    task.model.encoder("text").mean.fill_(0.5)
    task.finish(lambda: [batch_for(task)])
    assert (task.model.encoder("text").mean == 0.5).all()


def test_frozen_streams_carry_the_gradient_to_the_others(batch_for: Batches) -> None:
    task = _task("joint video audio")
    chosen = select_parameters(Trainable(task.model, [task]), ["environments.vision.*"], "test")
    losses = task(batch_for(task), _draws())
    losses["audio"].backward()  # the video's environment hears of the sound's error
    assert any(p.grad is not None and p.grad.any() for p in chosen.values())


def test_a_diffuser_alone_leaves_environment_attention_to_joint_training() -> None:
    names = set(_chosen(_task("denoise audio")))
    assert names
    assert not any("environment_attention" in name for name in names)
    joint = set(_chosen(_task("joint audio text")))
    assert all("environment" in name or name == "log_scale" for name in joint)
