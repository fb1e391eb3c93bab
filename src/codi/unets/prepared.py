"""What one UNet computes of a prompt and of steps alone, kept for all evaluations of a request.

A request asks a diffuser dozens of times with the same context, at steps that it knows beforehand.
It knows no latent and no guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from codi.nn.attention import Attention, Projected
from codi.nn.conv import ResBlock, Shift


@dataclass(frozen=True)
class PreparedContext:
    """A context (B, L, D) as one UNet reads it, made by its `prepare`; of no use to another.

    Attributes:
        projected: keys and values for every attention to the prompt.
        pooled: the prompt's share (B, D) of the step embedding, where the UNet has one.
        by_step: for steps that it was prepared for, what every residual block adds: a row for
            every sample where `pooled` is theirs, else one row for all. So memory grows with the
            steps: a megabyte or less for each of the released diffusers.
        shifts: those of the step that is evaluated; none where it has to be computed.
    """

    projected: Mapping[Attention, Projected]
    pooled: Tensor | None = None
    by_step: Mapping[int, Mapping[ResBlock, Shift]] = field(default_factory=dict)
    shifts: Mapping[ResBlock, Shift] = field(default_factory=dict)

    def at(self, t: int) -> PreparedContext:
        """Return the context for an evaluation of all samples at step `t`; nothing is copied."""
        return replace(self, shifts=self.by_step.get(t, {}))

    def first(self, count: int) -> PreparedContext:
        """Return the first `count` samples, for the step that it is `at`; nothing is copied."""
        return PreparedContext(
            {attention: projected.first(count) for attention, projected in self.projected.items()},
            None if self.pooled is None else self.pooled[:count],
            shifts={block: Shift(shift.added[:count]) for block, shift in self.shifts.items()},
        )


Context = Tensor | PreparedContext
"""A prompt, as the prompt encoders leave it or as one UNet has prepared it."""
