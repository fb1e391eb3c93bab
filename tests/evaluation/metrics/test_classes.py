"""Inception Score and KL at their ends, and beside a published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codi.evaluation.metrics.classes import inception_score, softmax_kl


def test_sure_and_varied_guesses_score_as_many_as_there_are_classes() -> None:
    assert inception_score(1000.0 * np.eye(5)) == pytest.approx(5.0)
    assert inception_score(np.tile([9.0, 1.0, 0.0], (7, 1))) == pytest.approx(1.0)
    assert inception_score(np.tile(1000.0 * np.eye(5), (4, 1)), splits=4) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="every part"):
        inception_score(np.eye(2), splits=3)


def test_kl_is_zero_for_the_same_guess_and_has_a_closed_form() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 6))
    np.testing.assert_allclose(softmax_kl(scores, scores + 7.0), 0.0, atol=1e-12)
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    wanted = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert softmax_kl(np.log(q), np.log(p))[0] == pytest.approx(wanted)
    with pytest.raises(ValueError, match="pair them"):
        softmax_kl(scores, scores[:2])


class Flat(nn.Module):
    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1)


@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_torchmetrics() -> None:
    inception = pytest.importorskip(
        "torchmetrics.image.inception", reason="needs torchmetrics, and torchvision beside it"
    )
    reference = inception.InceptionScore(feature=Flat(), splits=1)
    x = 8.0 * torch.rand(40, 3, 2, 2)
    reference.update(x)
    own = inception_score(x.flatten(1).numpy())
    assert own == pytest.approx(float(reference.compute()[0]), abs=1e-4)


def test_kl_agrees_with_torch() -> None:
    a, b = torch.randn(5, 9), torch.randn(5, 9)
    wanted = torch.nn.functional.kl_div(a.log_softmax(1), b.softmax(1), reduction="none").sum(1)
    np.testing.assert_allclose(softmax_kl(a.numpy(), b.numpy()), wanted.numpy(), atol=1e-6)
