"""What one UNet computes of a prompt alone, kept for all evaluations that the prompt has.

A request asks a diffuser dozens of times with the same context. It knows no step, no latent and no
guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from codi.nn.attention import Attention, Projected


@dataclass(frozen=True)
class PreparedContext:
    """A context (B, L, D) as one UNet reads it, made by its `prepare`; of no use to another.

    Attributes:
        projected: keys and values for every attention to the prompt.
        pooled: the prompt's share (B, D) of the step embedding, where the UNet has one.
    """

    projected: Mapping[Attention, Projected]
    pooled: Tensor | None = None

    def first(self, count: int) -> PreparedContext:
        """Return the first `count` samples; nothing is copied."""
        return PreparedContext(
            {attention: projected.first(count) for attention, projected in self.projected.items()},
            None if self.pooled is None else self.pooled[:count],
        )


Context = Tensor | PreparedContext
"""A prompt, as the prompt encoders leave it or as one UNet has prepared it."""
