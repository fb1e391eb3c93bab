"""The moving average."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from codi.training.ema import MovingAverage


def _parameters(value: float) -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.full((3,), value))}


def test_without_decay_it_is_the_parameters() -> None:
    average = MovingAverage(_parameters(0.0), decay=0.0)
    average.update(_parameters(5.0), step=100)
    assert torch.equal(average.values["w"], torch.full((3,), 5.0))


def test_it_moves_towards_the_parameters_and_stays_between() -> None:
    average, target = MovingAverage(_parameters(0.0), decay=0.9), _parameters(1.0)
    seen = []
    for step in range(200):
        average.update(target, step)
        seen.append(average.values["w"][0].item())
    assert all(0 <= a <= b <= 1 for a, b in pairwise(seen))
    assert seen[-1] > 0.999


def test_the_beginning_is_forgotten_fast() -> None:
    fast, slow = (MovingAverage(_parameters(0.0), decay=0.999) for _ in range(2))
    fast.update(_parameters(1.0), step=0)
    slow.update(_parameters(1.0), step=10_000)
    assert fast.values["w"][0] > 0.8
    assert slow.values["w"][0] < 0.01


def test_it_is_the_stages_result() -> None:
    average, parameters = MovingAverage(_parameters(0.5), decay=0.9), _parameters(1.0)
    average.copy_to(parameters)
    assert torch.equal(parameters["w"], torch.full((3,), 0.5))


def test_the_parameters_are_not_touched_by_it() -> None:
    parameters = _parameters(1.0)
    average = MovingAverage(parameters, decay=0.9)
    average.values["w"].zero_()
    assert parameters["w"].all()


def test_parameters_are_their_averages_for_a_while() -> None:
    average, parameters = MovingAverage(_parameters(0.3), decay=0.9), _parameters(1.7)
    with average.applied(parameters):
        assert torch.equal(parameters["w"].detach(), torch.full((3,), 0.3))
    assert torch.equal(parameters["w"].detach(), torch.full((3,), 1.7))
    assert parameters["w"].requires_grad
