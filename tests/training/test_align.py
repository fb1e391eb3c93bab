"""The contrastive loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from codi.training.align import contrastive_loss

SCALE = torch.tensor(math.log(100.0))


def _vectors(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(6, 8, generator=generator), dim=1)


def test_perfect_alignment_costs_nothing() -> None:
    vectors = torch.eye(6)
    same = torch.eye(6, dtype=torch.bool)
    assert contrastive_loss(vectors, vectors, same, SCALE).item() == pytest.approx(0.0, abs=1e-6)
    assert contrastive_loss(vectors, -vectors, same, SCALE) > 10


def test_with_one_match_each_it_is_clips_loss() -> None:
    a, b = _vectors(0), _vectors(1)
    scores = SCALE.exp() * a @ b.T
    target = torch.arange(6)
    expected = 0.5 * (cross_entropy(scores, target) + cross_entropy(scores.T, target))
    same = torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(a, b, same, SCALE), expected)


def test_it_is_symmetric() -> None:
    a, b = _vectors(0), _vectors(1)
    matches = torch.rand(6, 6) < 0.3
    torch.testing.assert_close(
        contrastive_loss(a, b, matches, SCALE), contrastive_loss(b, a, matches.T, SCALE)
    )


def test_captions_true_of_several_are_no_negatives_of_each_other() -> None:
    vectors = torch.eye(2).repeat_interleave(3, 0)  # two kinds of three items
    kinds = (vectors @ vectors.T).bool()
    only_own = torch.eye(6, dtype=torch.bool)
    assert contrastive_loss(vectors, vectors, kinds, SCALE).item() == pytest.approx(0.0, abs=1e-5)
    assert contrastive_loss(vectors, vectors, only_own, SCALE) > 1.0


def test_a_row_without_a_match_costs_nothing() -> None:
    a, b = _vectors(0), _vectors(1)
    assert contrastive_loss(a, b, torch.zeros(6, 6, dtype=torch.bool), SCALE) == 0.0
