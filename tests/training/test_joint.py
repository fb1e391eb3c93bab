"""Joint training: steps of the streams, truncated prompts, the contrast of environments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codi.build import Model
from codi.config import ConfigError
from codi.training.joint import Joint, JointConfig, truncated
from codi.training.task import Draws
from tests.small import awake_model, small_config
from tests.training.conftest import Batches


def _joint(model: Model | None = None, **changes: Any) -> Joint:
    settings: dict[str, Any] = {"streams": ("video", "audio"), "captions": ("video",)}
    return Joint(model or Model(small_config(), []), JointConfig(**(settings | changes)))


def _draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def test_shared_steps_are_one_step() -> None:
    t = _joint(timesteps="shared", clean=0.0).steps(200, _draws())
    assert torch.equal(t["video"], t["audio"])


def test_independent_steps_have_nothing_to_do_with_each_other() -> None:
    t = _joint(timesteps="independent", clean=0.0).steps(2000, _draws())
    assert (t["video"] == t["audio"]).float().mean() < 0.01
    assert torch.corrcoef(torch.stack([t["video"], t["audio"]]).float())[0, 1].abs() < 0.1


def test_mixed_steps_are_either() -> None:
    t = _joint(timesteps="mixed", clean=0.0).steps(2000, _draws())
    assert (t["video"] == t["audio"]).float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("clean", [0.0, 0.33, 1.0])
def test_one_stream_is_clean_as_often_as_asked_for(clean: float) -> None:
    t = _joint(clean=clean).steps(3000, _draws())
    zero = torch.stack([steps == 0 for steps in t.values()])
    assert zero.sum(0).max() <= 1  # never both: there would be nothing to learn
    assert zero.any(0).float().mean().item() == pytest.approx(clean, abs=0.03)
    assert all((steps >= 0).all() and (steps <= 1000).all() for steps in t.values())


def test_an_unknown_coupling_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'shard'; did you mean 'shared'"):
        _joint(timesteps="shard")


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.integers(0, 100))
def test_a_truncated_prompt_is_the_beginning_of_a_prompt(texts: list[str], seed: int) -> None:
    for whole, cut in zip(texts, truncated(texts, _draws(seed)), strict=True):
        words, kept = whole.split(), cut.split()
        assert kept == words[: len(kept)]
        if words:
            assert 1 <= len(kept) <= max(1, round(0.7 * len(words)))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_streams_are_given_in_the_shares_asked_for(share: float) -> None:
    t = _joint(clean=1.0, given={"video": share, "audio": 1.0 - share}).steps(3000, _draws())
    assert (t["video"] == 0).float().mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("setting", [{"given": {"vidio": 1.0}}, {"predicted": ("vidio",)}])
def test_what_settings_name_is_one_of_the_streams(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}: .*; did you mean 'video'"):
        _joint(**setting)


def test_a_stream_that_is_only_listened_to_needs_no_diffuser(batch_for: Batches) -> None:
    whole = awake_model()
    task = _joint(whole, predicted=("audio",), contrast=0.0, clean=0.0)
    assert "diffusers.vision" not in task.parts
    assert "environments.vision" in task.parts
    assert not any(glob.startswith("diffusers.vision") for glob in task.default_train)
    assert task.streams == ("audio",)
    losses = task(batch_for(task), _draws())
    assert set(losses) == {"audio"}
    losses["audio"].backward()
    heard = whole.role("environments")["vision"].parameters()
    assert any(p.grad is not None and bool(p.grad.any()) for p in heard)


def test_the_noisy_end_is_drawn_more_often_where_asked() -> None:
    t = _joint(noisier=3.0, clean=0.0).steps(3000, _draws())["video"].float()
    assert t.mean().item() == pytest.approx(750, abs=15)
    assert t.min() >= 1
    assert t.max() <= 1000


def test_no_draw_lies_beyond_the_noisiest_step() -> None:
    draws = _draws()
    draws.uniform = lambda *shape: torch.full(shape, 1 - 2**-24)  # type: ignore[method-assign]
    t = _joint(noisier=3.0, clean=0.0).steps(4, draws)
    assert all((steps == 1000).all() for steps in t.values())


def test_without_predictions_v_is_trained_by_contrast_alone(batch_for: Batches) -> None:
    task = _joint(awake_model(), predicted=(), contrast_slots=1.0)
    assert not any(part.startswith(("diffusers", "encoders")) for part in task.parts)
    assert set(task(batch_for(task), _draws())) == {"contrast", "contrast_slots"}


def test_slots_are_contrasted_between_streams_with_time(batch_for: Batches) -> None:
    task = _joint(awake_model(), streams=("image", "audio"), predicted=(), contrast_slots=1.0)
    with pytest.raises(ConfigError, match="two streams with time, and of image, audio audio has"):
        task(batch_for(task), _draws())


def test_a_joint_stage_has_something_to_learn() -> None:
    with pytest.raises(ValueError, match="nothing is predicted and nothing contrasted"):
        _joint(predicted=(), contrast=0.0)
    with pytest.raises(ValueError, match="audio alone is predicted"):
        _joint(predicted=("audio",), given={"audio": 1.0})
    with pytest.raises(ValueError, match=r"noisier is 0\.5"):
        _joint(noisier=0.5)


def test_a_clean_stream_has_nothing_to_predict(batch_for: Batches) -> None:
    task = _joint(awake_model(), clean=1.0, given={"video": 1.0}, contrast=0.0)
    losses = task(batch_for(task), _draws())
    assert set(losses) == {"audio"}
    assert losses["audio"] > 0.0


def test_the_contrast_is_of_pairs_of_streams(batch_for: Batches) -> None:
    with_contrast = _joint(awake_model())
    without = _joint(with_contrast.model, contrast=0.0)
    assert set(with_contrast(batch_for(with_contrast), _draws())) == {"video", "audio", "contrast"}
    assert set(without(batch_for(without), _draws())) == {"video", "audio"}
    assert "log_scale" in with_contrast.default_train
    assert "log_scale" not in without.default_train
