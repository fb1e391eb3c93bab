"""The limits of a machine and the clock: products, memory, and works timed in turns.

Everything waits for the device before it reads the clock. Nothing here knows a network.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Work = Callable[[], object]
Name = TypeVar("Name")
Result = TypeVar("Result")


def wait(device: torch.device | str) -> None:
    """Wait until a device has done all that it was asked for."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Work, device: torch.device | str = "cpu") -> float:
    """Return how long one call takes."""
    wait(device)
    began_s = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began_s


def fastest(work: Work, device: torch.device | str, duration_s: float) -> float:
    """Return the seconds of the fastest of the calls that fit into `duration_s`, one at least.

    A first call is not counted.
    """
    work()
    best_s, began_s = math.inf, time.perf_counter()
    while math.isinf(best_s) or time.perf_counter() - began_s < duration_s:
        best_s = min(best_s, seconds(work, device))
    return best_s


def in_turns(
    works: Mapping[Name, Work], repeat: int, device: torch.device | str = "cpu", warm_up: int = 1
) -> dict[Name, list[float]]:
    """Return the seconds of `repeat` calls of each work, called one after the other in turns.

    A machine that slows down for a while then slows all of them, and the ratio of two works that
    were called in the same turn keeps its meaning. The first `warm_up` turns are not counted.
    """
    taken: dict[Name, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + repeat):
        for name, work in works.items():
            taken_s = seconds(work, device)
            if turn >= warm_up:
                taken[name].append(taken_s)
    return taken


def ratio(times: Mapping[str, list[float]], one: str, other: str) -> float:
    """Return the median over the turns of how much longer `one` took than `other`."""
    pairs = zip(times[one], times[other], strict=True)
    return statistics.median(a / b for a, b in pairs)


def matrix_peak(
    device: torch.device | str = "cpu",
    size: int | None = None,
    duration_s: float = 0.5,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Measure the operations per second of square matrix multiplication, at its best.

    Without a size it is that which suits the device.
    """
    size = size or (8192 if torch.device(device).type == "cuda" else 1024)
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / fastest(lambda: a @ a, device, duration_s)


def peak_around(
    work: Callable[[], Result], device: torch.device | str, dtype: torch.dtype
) -> tuple[Result, float]:
    """Return what a work returns, and the `matrix_peak` before or after it, whichever is higher.

    A busy machine has slow spells: measured in one alone, a work beside it may pass its peak.
    """
    before = matrix_peak(device, dtype=dtype)
    done = work()
    return done, max(before, matrix_peak(device, dtype=dtype))


def reading_speed(
    device: torch.device | str = "cpu",
    size: int = 2**28,
    duration_s: float = 0.5,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Measure the bytes per second at which a matrix of `size` bytes is read, at its best.

    It is read by a product with one vector, which does little else and is what a network of linear
    layers does with its weights, and by a sum: the faster one counts.
    """
    width = 4096
    matrix: Tensor = torch.ones(max(size // dtype.itemsize // width, 1), width, device=device)
    matrix = matrix.to(dtype)
    vector = torch.ones(width, device=device, dtype=dtype)
    times = [
        fastest(work, device, duration_s / 2) for work in (matrix.sum, lambda: matrix @ vector)
    ]
    return matrix.numel() * dtype.itemsize / min(times)
