"""Inception Score and KL at their ends, and beside a published implementation."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn

from codi.evaluation.metrics import rows
from codi.evaluation.metrics.classes import (
    inception_interval,
    inception_score,
    log_probabilities,
    softmax_kl,
)


def test_sure_and_varied_guesses_score_as_many_as_there_are_classes() -> None:
    assert inception_score(1000.0 * np.eye(5)) == pytest.approx(5.0)
    assert inception_score(np.tile([9.0, 1.0, 0.0], (7, 1))) == pytest.approx(1.0)
    assert inception_score(np.tile(1000.0 * np.eye(5), (4, 1)), splits=4) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="every part"):
        inception_score(np.eye(2), splits=3)


class OnDisk:
    """Rows that must not all be read at once."""

    def __init__(self, held: np.ndarray) -> None:
        self.held, self.shape = held, held.shape

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, some: slice) -> np.ndarray:
        found: np.ndarray = self.held[some]
        assert len(found) <= rows.CHUNK
        return found

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise AssertionError("read whole")


def test_scores_are_read_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = 3.0 * np.random.default_rng(0).standard_normal((50, 6))
    log_p = log_probabilities(scores)
    halves = log_p[:25], log_p[25:]
    kls = [(np.exp(x) * (x - np.log(np.exp(x).mean(axis=0)))).sum(axis=1) for x in halves]
    wanted = np.mean([np.exp(kl.mean()) for kl in kls])
    whole = inception_interval(scores, wanted, splits=2)
    kl = softmax_kl(scores, scores[::-1])
    monkeypatch.setattr(rows, "CHUNK", 7)
    held, other = cast(np.ndarray, OnDisk(scores)), cast(np.ndarray, OnDisk(scores[::-1]))
    assert inception_score(held, splits=2) == pytest.approx(wanted)
    assert inception_interval(held, wanted, splits=2) == pytest.approx(whole)
    np.testing.assert_allclose(softmax_kl(held, other), kl)


def test_the_interval_holds_what_other_samples_score() -> None:
    """As many classes are drawn 200 times, and 95 % of the intervals should hold the mean."""
    rng = np.random.default_rng(0)
    values, intervals = [], []
    for _ in range(200):
        guesses = 6.0 * np.eye(5)[rng.integers(5, size=60)]
        values.append(inception_score(guesses))
        intervals.append(inception_interval(guesses, values[-1], resamples=20) or (0.0, 0.0))
    held = sum(bool(low <= np.mean(values) <= high) for low, high in intervals)
    assert held > 170
    assert inception_interval(np.tile([9.0, 1.0], (7, 1)), 1.0) is None


def test_fifty_thousand_samples_fit_in_memory(tmp_path: Path) -> None:
    """The rows take 80 MB in double precision, the counts of 20 resamples 20."""
    n, classes = 50_000, 200
    held = np.memmap(tmp_path / "scores.f32", "<f4", "w+", shape=(n, classes))
    held[:] = np.random.default_rng(0).standard_normal((n, classes), dtype=np.float32)
    tracemalloc.start()
    value = inception_score(held, splits=10)
    assert inception_interval(held, value, splits=10, resamples=20) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70e6


def test_kl_is_zero_for_the_same_guess_and_has_a_closed_form() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 6))
    np.testing.assert_allclose(softmax_kl(scores, scores + 7.0), 0.0, atol=1e-12)
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    wanted = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert softmax_kl(np.log(q), np.log(p))[0] == pytest.approx(wanted)
    with pytest.raises(ValueError, match="pair them"):
        softmax_kl(scores, scores[:2])


def test_scores_that_are_no_numbers_are_refused() -> None:
    broken = np.random.default_rng(0).standard_normal((9, 4))
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="scores that are not finite"):
        inception_score(broken)
    with pytest.raises(ValueError, match="scores that are not finite"):
        softmax_kl(broken, 2.0 * np.ones((9, 4)))


def test_kl_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        softmax_kl(np.zeros((0, 4)), np.zeros((0, 4)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_probabilities_are_not_put_through_a_second_softmax(dtype: type) -> None:
    scores = 5.0 * np.random.default_rng(0).standard_normal((50, 101))
    p = softmax(scores, axis=1).astype(dtype)
    rel = 1e-2 if dtype == np.float16 else 1e-5
    assert inception_score(scores) > 10.0
    assert inception_score(p) == pytest.approx(inception_score(scores), rel=rel)
    made, true = (slice(0, 25), slice(25, 50))
    wanted = softmax_kl(scores[made], scores[true]).mean()
    if dtype != np.float16:  # where most probabilities are 0
        assert softmax_kl(p[made], p[true]).mean() == pytest.approx(wanted, rel=rel)
        assert softmax_kl(p[made], scores[true]).mean() == pytest.approx(wanted, rel=rel)


def test_sure_probabilities_have_finite_logarithms() -> None:
    found = log_probabilities(np.eye(4))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), np.eye(4), atol=1e-12)
    assert inception_score(np.eye(4)) == pytest.approx(4.0)


def test_scores_of_a_sigmoid_are_refused() -> None:
    sigmoid = np.tile([[0.75, 0.25, 0.5], [0.1, 0.2, 0.0]], (8, 1))
    with pytest.raises(ValueError, match="as a sigmoid's; give a network"):
        log_probabilities(sigmoid)
    with pytest.raises(ValueError, match="as a sigmoid's"):
        inception_score(sigmoid)
    with pytest.raises(ValueError, match="as a sigmoid's"):
        softmax_kl(5.0 * sigmoid, sigmoid)


@pytest.mark.parametrize("row", [[-0.25, 0.25, 1.0], [1.75, 0.25, 0.5]])
def test_one_row_that_no_softmax_gives_makes_all_of_them_scores(row: list[float]) -> None:
    rows = np.array([[0.25, 0.25, 0.5], row])
    wanted = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probabilities(rows), wanted)


class Flat(nn.Module):
    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1)


@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_torchmetrics() -> None:
    inception = pytest.importorskip(
        "torchmetrics.image.inception", reason="needs torchmetrics, of the extra metrics"
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
