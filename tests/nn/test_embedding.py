"""Embeddings of steps and of physical time."""

from __future__ import annotations

import pytest
import torch

from codi.nn.embedding import StepEmbedding, frame_times, sinusoidal_embedding, slot_times


@pytest.mark.parametrize("width", [6, 7])
def test_every_step_has_its_own_features(width: int) -> None:
    features = sinusoidal_embedding(torch.arange(1001), width)
    assert features.shape == (1001, width)
    assert len(features.unique(dim=0)) == 1001


def test_features_are_cosines_and_sines() -> None:
    features = sinusoidal_embedding(torch.arange(50), 8)
    torch.testing.assert_close(features[:, :4] ** 2 + features[:, 4:] ** 2, torch.ones(50, 4))


def test_the_step_embedding_follows_the_weights_precision() -> None:
    embedding = StepEmbedding(8, 16).bfloat16()
    assert embedding(torch.tensor([1, 2])).dtype == torch.bfloat16


def test_weights_may_count_steps_from_zero() -> None:
    ours, theirs = StepEmbedding(8, 16), StepEmbedding(8, 16, first=0)
    theirs.load_state_dict(ours.state_dict())
    t = torch.tensor([1, 2, 1000])
    assert torch.equal(theirs(t), ours(t - 1))
    assert torch.equal(theirs(torch.tensor([0])), theirs(torch.tensor([1])))  # no name for clean


def test_frames_are_instants_and_slots_are_intervals() -> None:
    torch.testing.assert_close(frame_times(4, 2.0), torch.tensor([0.0, 0.5, 1.0, 1.5]))
    torch.testing.assert_close(slot_times(4, 2.0), torch.tensor([0.25, 0.75, 1.25, 1.75]))
