"""The contract of every training objective: a batch -> named losses.

A task knows the model and its objective. It does not know optimisers, steps, logging, devices or
checkpoints: those are the loop's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codi.build import Model
from codi.data.batches import Batch, Wanted


@dataclass
class Draws:
    """The randomness of one training step, made from (seed, stage, step) alone."""

    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return integers in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator)


class Task(nn.Module, ABC):
    """An objective over the parts of a model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    @abstractmethod
    def wanted(self) -> Wanted:
        """Return what the task reads from a batch."""

    @property
    @abstractmethod
    def parts(self) -> list[str]:
        """Return the parts ("role.name") the task uses, trained or frozen."""

    @property
    @abstractmethod
    def default_train(self) -> tuple[str, ...]:
        """Return globs over parameter names that this task trains when a recipe names none."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the modalities that can be sampled to see how training goes."""
        return ()

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return pictures, uint8 (H, W, 3) by name, of what the task makes of a batch, if any."""
        del batch
        return {}

    @abstractmethod
    def losses(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the named terms of the objective; their sum is minimised."""

    def finish(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Measure, on batches of data, what the trained parts need to know (scales, means)."""

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the losses; this name lets wrappers for distributed training work."""
        return self.losses(batch, draws)
