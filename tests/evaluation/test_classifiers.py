"""The judges learn toy digits, and what they should not care about they do not care about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from codi.evaluation.classifiers import Classifier, PictureClassifier, VoiceClassifier
from codi.evaluation.classifiers import train_classifier as train
from tests.evaluation.toy_digits import drawn, spoken


def pictures(classes: list[int], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    frames = np.stack([drawn(digit, rng) for digit in classes])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def sounds(classes: list[int], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([spoken(digit, rng) for digit in classes]))


@pytest.mark.parametrize(
    ("make", "widths", "media"),
    [(PictureClassifier, (8, 16, 32), pictures), (VoiceClassifier, (8, 16), sounds)],
)
def test_it_learns(
    make: Callable[[tuple[int, ...]], Classifier],
    widths: tuple[int, ...],
    media: Callable[[list[int], int], Tensor],
) -> None:
    labels = [i % 10 for i in range(100)]
    judge = train(make(widths), media(labels, 0), labels, steps=120, batch=32, learning_rate=1e-2)
    found = judge.classify(media(labels, 1))
    assert np.mean([a == b for a, b in zip(found, labels, strict=True)]) > 0.8


def test_training_repeats_itself() -> None:
    x, labels = pictures([0, 1, 2], 0), [0, 1, 2]
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(train(PictureClassifier((4, 4)), x, labels, steps=3).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_picture_is_read_without_its_colour_and_at_any_size() -> None:
    x = pictures([3, 7], 0)
    red = x.clone()
    red[:, 1:] = -1.0
    prepare = PictureClassifier.prepare
    assert torch.equal(prepare(red), prepare(x[:, :1].expand(-1, 3, -1, -1)))
    assert prepare(x.repeat_interleave(2, 2).repeat_interleave(2, 3)) == pytest.approx(prepare(x))


def test_a_voice_is_heard_at_any_level_and_time() -> None:
    x = sounds([4], 0)
    prepare = VoiceClassifier.prepare
    assert prepare(0.3 * x).shape == prepare(x).shape
    assert (prepare(0.3 * x) - prepare(x)).abs().max() < 0.05
    late = torch.roll(x, 4_000, dims=1)
    assert (prepare(late).sum() - prepare(x).sum()).abs() < 0.05 * prepare(x).sum()


def test_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="labels"):
        train(PictureClassifier((4,)), pictures([1, 2], 0), [1], steps=1)
