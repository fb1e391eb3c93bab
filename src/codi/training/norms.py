"""How large gradients and updates are, part by part: what a log of training shows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def part_of(name: str) -> str:
    """Return the part a parameter belongs to: the first two names of its path."""
    return ".".join(name.split(".")[:2])


def gradient_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Return the norm of the gradient of every part, as "gradient/<part>"."""
    return _norms("gradient", {n: p.grad for n, p in parameters.items() if p.grad is not None})


def update_norms(
    parameters: Mapping[str, nn.Parameter], initial: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return how far every part has moved from where it was, as "update/<part>"."""
    return _norms("update", {n: p.detach() - initial[n] for n, p in parameters.items()})


def all_finite(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Say whether every number is finite, by the norms: one pass, one wait."""
    norms = torch._foreach_norm([p.detach() for p in parameters.values()])
    return bool(torch.stack(norms).isfinite().all())


def _norms(kind: str, tensors: dict[str, Tensor]) -> dict[str, float]:
    if not tensors:
        return {}
    squares: dict[str, float] = {}
    norms = torch.stack(torch._foreach_norm(list(tensors.values()))).tolist()  # one wait for all
    for name, norm in zip(tensors, norms, strict=True):
        key = f"{kind}/{part_of(name)}"
        squares[key] = squares.get(key, 0.0) + norm**2
    return {key: math.sqrt(value) for key, value in squares.items()}
