"""Replayed evaluations are the network's own, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codi.build import load_config
from codi.nn.graphs import replay
from tests.small import small_config


class Network(nn.Module):
    """Counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.evaluations = 0

    def forward(self, x: Tensor, beside: Tensor | None = None, scale: float = 1.0) -> Tensor:
        self.evaluations += 1
        x = self.layer(x) * scale
        return x if beside is None else x + beside


def test_on_a_cpu_a_network_is_evaluated_as_before() -> None:
    network, x = Network(), torch.randn(2, 4)
    wanted = network(x)
    replay(network)
    assert torch.equal(network(x), wanted)
    assert torch.equal(network(x, scale=2.0), 2 * wanted)
    assert network.evaluations == 3
    assert set(network.state_dict()) == {
        f"{layer}.{kind}" for layer in ("layer", "unused") for kind in ("weight", "bias")
    }


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU alone")


def _gradients(network: nn.Module, work: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Any]]:
    network.zero_grad(set_to_none=True)
    output = work()
    output.float().square().mean().backward()
    grads = {n: p.grad if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}
    return output.detach().clone(), grads


@cuda
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("name", ["image", "video", "audio", "text"])
def test_a_diffuser_and_its_gradients_are_replayed(name: str, bfloat16: bool) -> None:
    torch.manual_seed(0)
    config = load_config("tiny") if name == "video" else small_config()
    [part] = config.parts(("diffusers",), [name])
    network = config.part(*part.split(".", 1)).build().cuda()
    for p in network.parameters():  # what begins at zero would hide what is behind it
        nn.init.normal_(p, std=0.05) if p.ndim > 1 else None
    frozen = next(iter(network.parameters()))
    frozen.requires_grad_(False)
    shape = config.modality(name).latent
    width = config.part("encoders", "text").context_width

    def inputs(size: int, beside: bool) -> list[Tensor | None]:
        environment = config.part(*config.parts(("environments",), [name])[0].split(".", 1))
        return [
            torch.randn(size, *shape, device="cuda"),
            torch.randint(1, 1000, (size,), device="cuda"),
            torch.randn(size, 1, width, device="cuda"),
            torch.randn(size, environment.slots, environment.environment_width, device="cuda")
            if beside
            else None,
        ]

    forms = [inputs(3, False), inputs(3, True), inputs(2, True)]
    evaluate = network.forward
    replay(network)
    autocast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=bfloat16)
    for _ in range(4):
        for given in forms:
            for x in given:
                if x is not None and x.is_floating_point():
                    x.normal_()
            with autocast:
                output, gradients = _gradients(network, lambda x=given: network(*x))  # type: ignore[misc]
                wanted, true = _gradients(network, lambda x=given: evaluate(*x))  # type: ignore[misc]
            tolerance = 2e-2 if bfloat16 else 2e-3
            torch.testing.assert_close(output, wanted, rtol=tolerance, atol=tolerance)
            for key, gradient in gradients.items():
                assert (gradient is None) == (true[key] is None), key
                if gradient is not None:
                    size = float(true[key].abs().max()) + 1e-6
                    assert float((gradient - true[key]).abs().max()) <= 5 * tolerance * size, key
        with torch.no_grad():  # weights change between steps
            for p in network.parameters():
                p.mul_(1.01)
    assert len(network.forward.recorded) == len(forms)
    with torch.no_grad():
        results = [network(*forms[0]) for _ in range(3)]
        assert all(torch.equal(results[0], r) for r in results[1:])
