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


def orthogonalised(updates: Tensor) -> Tensor:
    """Return matrices (N, rows, columns) with all their singular values brought near 1.

    Five steps of a Newton-Schulz iteration (Jordan et al., 2024, "Muon: An optimizer for hidden
    layers in neural networks"); directions stay, magnitudes go. They are computed in the precision
    of `torch.autocast` where it is on: the iteration does not accumulate errors.
    """
    a, b, c = NEWTON_SCHULZ
    device = updates.device.type
    tall = updates.shape[-2] > updates.shape[-1]
    x = updates.mT if tall else updates
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)).contiguous()
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    for _ in range(_ITERATIONS):  # x <- a x + (b G + c G G) x, with G = x x^T
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(updates.dtype)


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
            for alike in self._alike(group["params"]):
                self._step_matrices(alike, group["lr"], group["weight_decay"])
                for p in alike:
                    p.grad = None  # nothing is left of it for AdamW
        super().step()
        return loss

    def _alike(self, parameters: Iterable[nn.Parameter]) -> list[list[Tensor]]:
        """Return the matrices that have a gradient, those of one shape together: one product."""
        groups: dict[tuple[int, int], list[Tensor]] = {}
        for p in parameters:
            if p.grad is not None and id(p) in self._matrices:
                groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
        return list(groups.values())

    def _step_matrices(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["step"] = torch.zeros(())  # which AdamW looks for in a loaded state
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        past = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(past, self.momentum)
        torch._foreach_add_(past, gradients)
        ahead = torch._foreach_add(gradients, past, alpha=self.momentum)
        moves = orthogonalised(torch.stack([x.flatten(1) for x in ahead]))
        size = 0.2 * max(moves.shape[1:]) ** 0.5
        torch._foreach_mul_(parameters, 1.0 - lr * decay)
        steps = [move.view_as(p) for move, p in zip(moves, parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-lr * size)


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
