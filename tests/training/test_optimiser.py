"""Optimisers: Muon orthogonalises matrices, leaves the rest to AdamW, and goes on after a stop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from codi.training.checkpoint import load_checkpoint, save_checkpoint
from codi.training.ema import MovingAverage
from codi.training.optimiser import OPTIMISERS, Muon, orthogonalised

SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.0}


class _Network(nn.Module):
    """A convolution and a layer, a table, and a gain."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.table = nn.Embedding(20, 32)
        self.conv = nn.Conv2d(32, 24, 3, padding=1)
        self.head = nn.Linear(24, 3)
        self.gain = nn.Parameter(torch.ones(1))
        for p in self.parameters():
            nn.init.normal_(p, std=0.2, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.head(self.conv(self.table(x).movedim(-1, 1)).mean((2, 3)))


@pytest.mark.parametrize("shape", [(24, 90), (90, 24), (32, 32)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7.0
    [found] = orthogonalised(update[None])
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    u, _, v = torch.linalg.svd(update, full_matrices=False)
    mixed = u.T @ found @ v.T
    assert (mixed - mixed.diag().diag()).abs().max() < 1e-3


def test_a_matrix_is_updated_as_if_it_were_alone() -> None:
    several = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    for one, found in zip(several, orthogonalised(several), strict=True):
        torch.testing.assert_close(found, orthogonalised(one[None])[0], rtol=1e-4, atol=1e-5)


def test_under_autocast_it_computes_in_half_the_bits() -> None:
    updates = torch.randn(2, 40, 24, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        found = orthogonalised(updates)
    exact = orthogonalised(updates)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.03 * exact.norm()


def test_a_gradient_of_zero_changes_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(1, 20, 30)), torch.zeros(1, 20, 30))


def test_what_it_updates_are_weights_of_layers_and_convolutions() -> None:
    network = _Network()
    optimiser = OPTIMISERS["muon"](network, list(network.parameters()), **SETTINGS)
    network(torch.zeros(2, 4, 4, dtype=torch.long)).square().sum().backward()
    optimiser.step()
    kept = {n: set(optimiser.state[p]) for n, p in network.named_parameters()}
    assert kept.pop("conv.weight") == {"momentum_buffer", "step"}
    assert all(keys == {"step", "exp_avg", "exp_avg_sq"} for keys in kept.values())


def test_its_state_can_be_loaded() -> None:
    network = _Network()
    first, second = (
        OPTIMISERS["muon"](network, list(network.parameters()), **SETTINGS) for _ in range(2)
    )
    network(torch.zeros(2, 4, 4, dtype=torch.long)).square().sum().backward()
    first.step()
    second.load_state_dict(first.state_dict())
    loaded = second.state[network.conv.weight]["momentum_buffer"]
    assert torch.equal(loaded, first.state[network.conv.weight]["momentum_buffer"])


def test_a_step_is_as_large_as_one_of_adamw() -> None:
    p = nn.Parameter(torch.zeros(64, 48))
    p.grad = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    optimiser = Muon([p], [], **SETTINGS)
    optimiser.step()
    size = p.detach().square().mean().sqrt() / SETTINGS["lr"]
    assert 0.1 < size < 0.4  # AdamW's usual: 0.2 to 0.4 of the rate


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_learns(name: str) -> None:
    network = _Network()
    optimiser = OPTIMISERS[name](network, list(network.parameters()), **SETTINGS)
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 20, (16, 4, 4), generator=generator)
    y = torch.randn(16, 3, generator=generator)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = mse_loss(network(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert math.isfinite(losses[-1])
    assert losses[-1] < 0.3 * losses[0]


def test_after_a_checkpoint_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def fresh() -> tuple[_Network, dict[str, nn.Parameter], torch.optim.Optimizer, MovingAverage]:
        network = _Network()
        parameters = dict(network.named_parameters())
        optimiser = OPTIMISERS["muon"](network, list(parameters.values()), **SETTINGS)
        return network, parameters, optimiser, MovingAverage(parameters, 0.9)

    def take(
        run: tuple[_Network, dict[str, nn.Parameter], torch.optim.Optimizer, MovingAverage],
        steps: range,
    ) -> None:
        network, parameters, optimiser, average = run
        for step in steps:
            optimiser.zero_grad()
            network(torch.full((2, 4, 4), step)).square().sum().backward()
            optimiser.step()
            average.update(parameters, step)

    straight, stopped, resumed = fresh(), fresh(), fresh()
    take(straight, range(6))
    take(stopped, range(3))
    save_checkpoint(tmp_path / "checkpoint", *stopped[1:], {"step": 3})
    load_checkpoint(tmp_path / "checkpoint", *resumed[1:])
    take(resumed, range(3, 6))
    assert all(torch.equal(p, resumed[1][name]) for name, p in straight[1].items())
