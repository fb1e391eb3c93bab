"""Reuse of a UNet's deep features between the steps of sampling (DeepCache, Ma et al., 2024).

From one step to the next the inside of a UNet changes little and its outermost layers most. So the
inside is computed at every n-th evaluation, and the others go from the outermost layers down
straight to the outermost layers up. It knows no weights and no noise schedule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

OUTERMOST = 2
"""Skip connections whose layers are computed at every evaluation: those of the first convolution
and of the first block."""


@dataclass
class DeepFeatures:
    """What one UNet keeps while it denoises one batch.

    Attributes:
        every: evaluations from one computation of the inside to the next; 1 reuses nothing.
        computed: evaluations whose inside was computed; reused: evaluations that took it from
            before.
    """

    every: int = 1
    computed: int = 0
    reused: int = 0
    _kept: Tensor | None = field(default=None, repr=False)
    _age: int = 0

    def take(self, x: Tensor) -> Tensor | None:
        """Return the features of before, or None where they have to be computed: `keep` them then.

        Args:
            x: what the UNet begins with (N, ...). Features of another N are of no use to it: a step
                with guidance after one without.
        """
        if self._kept is not None and self._age < self.every and len(self._kept) == len(x):
            self._age += 1
            self.reused += 1
            return self._kept
        self.computed += 1
        return None

    def keep(self, features: Tensor) -> None:
        """Keep the features (N, C, H, W) that were computed now."""
        self._kept, self._age = (features, 1) if self.every > 1 else (None, 0)
