"""Operations of a work: matrix products, convolutions and attention; a multiply-add is two.

They are counted where torch is asked for them, on shapes or on numbers, forwards and backwards.
What is not asked for by its name is not seen: packed weights and recorded evaluations
(`codi.nn.readiness`), so count on networks as they are trained. Fourier transforms are left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from codi.benchmarks.machine import Work

_Shape = Sequence[int]


class Named(Protocol):
    """What has a name, such as a stage of a recipe."""

    @property
    def name(self) -> str:
        """Return the name."""


def counter() -> FlopCounterMode:
    """Return a context that counts what is computed inside it: its `get_total_flops()`."""
    return FlopCounterMode(display=False, custom_mapping=_OF_CPU)


def counted(work: Work) -> int:
    """Count the operations of a work on shapes; a multiplication and an addition are two."""
    with torch.device("meta"), torch.no_grad():
        return performed(work)


def performed(work: Work) -> int:
    """Count the operations of a work while it is done, backwards too where it has gradients."""
    with counter() as seen:
        work()
    return int(seen.get_total_flops())


class StepCounter:
    """Counts training steps while a loop takes them: forwards, backwards and update.

    Attributes:
        flops: by name of the stage, the mean over all of its steps but the first, which are those
            that a clock counts.
    """

    def __init__(self) -> None:
        self.flops: dict[str, float] = {}

    def steps(self, stage: Named, steps: Iterable[int]) -> Iterator[int]:
        """Yield the steps, two at least; what is computed until the next is asked for counts."""
        taken = []
        for step in steps:
            with counter() as seen:
                yield step
            taken.append(seen.get_total_flops())
        self.flops[stage.name] = statistics.fmean(taken[1:])


def _attention(query: _Shape, key: _Shape, value: _Shape, *_more: Any, **_others: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: _Shape, query: _Shape, key: _Shape, value: _Shape, *_more: Any, **_others: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# torch counts the attention of GPUs alone; on shapes it is asked for as two matrix products.
_OF_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
