"""The optimisers a stage can name.

They know parameters and gradients, and neither models nor objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan et al. (2024): fast, and exact to about 30 %."""
_ITERATIONS = 5
_SMALLEST_SIDE = 16


def orthogonalised(update: Tensor) -> Tensor:
    """Return the matrix (rows, columns) with all singular values brought near 1.

    Five steps of a Newton-Schulz iteration (Jordan et al., 2024, "Muon: An optimizer for hidden
    layers in neural networks"); directions stay, magnitudes go.
    """
    a, b, c = NEWTON_SCHULZ
    tall = update.shape[0] > update.shape[1]
    x = update.T if tall else update
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for the matrices of a network, AdamW for all else.

    The kernel of a convolution counts as a matrix of output channels by everything else. The update
    has the size that AdamW's usually has (Liu et al., 2025, "Muon is scalable for LLM training",
    section 2.2: 0.2 sqrt(max(rows, columns)) times the rate), so one learning rate serves both.

    Args:
        matrices: weights of at least two dimensions that the orthogonalised momentum updates.
        others: parameters for AdamW: biases, gains, embeddings.
        momentum: share of the past in the (Nesterov) momentum.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        self.momentum = momentum
        chosen, rest = list(matrices), list(others)
        self._matrices = {id(p) for p in chosen}
        super().__init__(
            [group for group in ({"params": chosen}, {"params": rest}) if group["params"]],
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient; those of matrices are used up."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and id(p) in self._matrices:
                    self._step_matrix(p, p.grad, group["lr"], group["weight_decay"])
                    p.grad = None  # nothing is left of it for AdamW
        super().step()
        return loss

    def _step_matrix(self, p: nn.Parameter, gradient: Tensor, lr: float, decay: float) -> None:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["step"] = torch.zeros(())  # which AdamW looks for when a state is loaded
            state["momentum_buffer"] = torch.zeros_like(p)
        past = state["momentum_buffer"]
        past.mul_(self.momentum).add_(gradient)
        ahead = gradient.add(past, alpha=self.momentum).flatten(1)
        size = 0.2 * max(ahead.shape) ** 0.5
        p.mul_(1.0 - lr * decay).add_(orthogonalised(ahead).view_as(p), alpha=-lr * size)


def _matrices(module: nn.Module) -> set[int]:
    """Return the ids of weights that multiply features; tables of embeddings and gains do not."""
    return {
        id(layer.weight)
        for layer in module.modules()
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
        and min(layer.weight.shape[0], layer.weight[0].numel()) >= _SMALLEST_SIDE
    }


def _adamw(_module: nn.Module, parameters: list[nn.Parameter], **settings: Any) -> AnyOptimiser:
    return torch.optim.AdamW(parameters, fused=True, **settings)


def _muon(module: nn.Module, parameters: list[nn.Parameter], **settings: Any) -> AnyOptimiser:
    chosen = _matrices(module)
    return Muon(
        [p for p in parameters if id(p) in chosen],
        [p for p in parameters if id(p) not in chosen],
        **settings,
    )


AnyOptimiser = torch.optim.Optimizer
OPTIMISERS: Mapping[str, Callable[..., AnyOptimiser]] = {"adamw": _adamw, "muon": _muon}
"""Name in a recipe -> (module, its parameters to train, lr, betas, weight_decay) -> optimiser."""
