"""Classifier-free guidance as pure functions of two predictions.

The functions take the conditional and the unconditional prediction, (B, ...) of any kind (noise,
data or velocity). This module does not know where they come from or what was dropped to make the
unconditional one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def combine(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Extrapolate from `uncond` through `cond` (Ho & Salimans 2022, Eq. 6, scale = 1 + w).

    Scale 1 is exactly `cond`, scale 0 exactly `uncond`.

    >>> combine(torch.tensor([1.0]), torch.tensor([0.5]), 3.0)
    tensor([2.])
    """
    if scale == 1:
        return cond
    return uncond + scale * (cond - uncond)


def rescale(guided: Tensor, cond: Tensor, phi: float) -> Tensor:
    """Pull the deviation of `guided` (B, ...) back to that of `cond`, by a share phi in 0..1.

    Lin et al. 2023, Eq. 15 and 16. The statistics are of each sample over its own axes, so a
    sample does not depend on its batch.

    >>> rescale(torch.tensor([[-4.0, 4.0]]), torch.tensor([[-1.0, 1.0]]), 0.5)
    tensor([[-2.5000,  2.5000]])
    """
    if phi == 0:
        return guided
    axes = tuple(range(1, guided.ndim))
    wanted = cond.std(dim=axes, keepdim=True, correction=0)
    found = guided.std(dim=axes, keepdim=True, correction=0)
    ratio = torch.where(found == 0, 1.0, wanted / found.masked_fill(found == 0, 1.0))
    return guided * (phi * ratio + (1 - phi))


@dataclass(frozen=True)
class GuidanceRule:
    """Say how strongly, and at which steps, a prediction is guided.

    Attributes:
        scale: 1 follows the condition as learned; above 1 exaggerates it.
        rescale: share phi of Lin et al. 2023, 0 (off) to 1.
        interval: first and last step t, both included, that are guided (Kynkaanniemi et al. 2024);
            None guides every step.

    >>> rule = GuidanceRule(scale=7.5, interval=(200, 800))
    >>> rule.active(100), rule.active(200), GuidanceRule(scale=1.0).active(200)
    (False, True, False)
    """

    scale: float
    rescale: float = 0.0
    interval: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for a scale that is not finite, a rescale outside 0..1, or an interval that
                is empty or negative.
        """
        if not math.isfinite(self.scale):
            raise ValueError(f"guidance scale is {self.scale}; choose a finite number")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"guidance rescale is {self.rescale}; choose 0 (off) to 1 (full)")
        if self.interval is not None and not 0 <= self.interval[0] <= self.interval[1]:
            raise ValueError(
                f"guidance interval is {self.interval}; give (low, high) with 0 <= low <= high"
            )

    def active(self, t: int) -> bool:
        """Say whether step t needs the unconditional prediction."""
        if self.scale == 1:
            return False
        return self.interval is None or self.interval[0] <= t <= self.interval[1]

    def apply(self, cond: Tensor, uncond: Tensor, t: int) -> Tensor:
        """Guide `cond` (B, ...) at step t; exactly `cond` where the rule is not active."""
        if not self.active(t):
            return cond
        return rescale(combine(cond, uncond, self.scale), cond, self.rescale)
