"""Counts: what follows from the shapes, on shapes and on numbers, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from codi.benchmarks.counting import StepCounter, counted, performed
from codi.training.recipe import Objective, Stage


def test_operations_of_a_linear_layer_are_two_a_weight() -> None:
    layer = nn.Linear(30, 50, device="meta")
    assert counted(lambda: layer(torch.zeros(4, 30))) == 2 * 4 * 30 * 50


@pytest.mark.parametrize("trains_input", [True, False])
def test_a_backward_pass_is_counted(trains_input: bool) -> None:
    layer, x = nn.Linear(30, 50), torch.zeros(4, 30, requires_grad=trains_input)
    passes = 3 if trains_input else 2
    assert performed(lambda: layer(x).sum().backward()) == passes * 2 * 4 * 30 * 50


def test_attention_is_two_products_and_five_backwards() -> None:
    def attend(device: str, trained: bool) -> Tensor:
        q, k = (torch.ones(2, 3, n, 8, device=device, requires_grad=trained) for n in (5, 7))
        return scaled_dot_product_attention(q, k, k)

    product = 2 * (2 * 3 * 5 * 7 * 8)
    assert counted(lambda: attend("meta", False)) == 2 * product
    assert performed(lambda: attend("cpu", False)) == 2 * product
    # The scores are computed once more on the way back.
    assert performed(lambda: attend("cpu", True).sum().backward()) == (2 + 5) * product


def test_steps_are_counted_without_the_first() -> None:
    layer, counts = nn.Linear(30, 50), StepCounter()
    stage = Stage("words", (Objective("reconstruct", {"bounce": 1.0}),), 1, 1, 1e-3)
    for step in counts.steps(stage, range(3)):
        layer(torch.zeros(step + 1, 30))
    assert counts.flops == {"words": (2 + 3) / 2 * 2 * 30 * 50}
    before = dict(counts.flops)
    layer(torch.zeros(1, 30))  # what comes after the steps is not one of them
    assert counts.flops == before
