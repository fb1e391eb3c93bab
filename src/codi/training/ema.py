"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Averages of named parameters; `decay` 0 keeps no history, so it equals the parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Move towards the parameters; early steps use a smaller decay (as in Adam's debiasing)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own = [parameters[name].detach() for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), own, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Overwrite the parameters with their averages."""
        for name, value in self.values.items():
            parameters[name].copy_(value)

    @contextmanager
    def applied(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Let the parameters be their averages for a while, bit for bit themselves afterwards."""
        own = {name: p.detach().clone() for name, p in parameters.items()}
        self.copy_to(parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    parameters[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return the averages."""
        return self.values
