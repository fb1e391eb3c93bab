"""Requests from text: seconds of a request and of a sampling step in a warm pipeline, operations.

Cold processes are not known here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from codi.benchmarks.counting import performed
from codi.benchmarks.machine import in_turns, wait
from codi.pipeline import Pipeline

PROMPT = "a red ball bounces"
"""What every request is made from."""


@dataclass(frozen=True)
class Timed:
    """One request to a warm pipeline.

    Attributes:
        to: the modalities that are generated.
        seconds: of the whole request, the median.
        step_s: seconds of a sampling step, the median; None where there is one step alone.
        of_parts: its time over the sum of its modalities' alone, the median over the turns; None
            for one modality.
    """

    to: tuple[str, ...]
    seconds: float
    step_s: float | None
    of_parts: float | None = None


def timed(
    pipeline: Pipeline, requests: Sequence[tuple[str, ...]], steps: int | None, repeat: int
) -> list[Timed]:
    """Time requests in turns.

    Args:
        pipeline: serves them.
        requests: what each generates; all modalities of a joint one alone as well.
        steps: denoising steps; the model's own when None.
        repeat: turns that count; one before them does not.
    """
    works = {to: _Request(pipeline, to, steps) for to in requests}
    times = in_turns(works, repeat, pipeline.device)
    return [
        Timed(
            to,
            statistics.median(times[to]),
            statistics.median(work.step_s[-repeat:]) if work.step_s else None,
            _of_parts(times, to) if len(to) > 1 else None,
        )
        for to, work in works.items()
    ]


def request_flops(plain: Pipeline, to: tuple[str, ...], steps: int | None) -> int:
    """Count the operations of a request: its prompt, every step, and decoding.

    Args:
        plain: a pipeline whose networks are not made ready, which is what `offload` leaves: of
            packed or recorded ones a counter sees nothing. On a GPU recorded ones compute at every
            step what these compute of the prompt once, which is then not counted.
        to: what is generated.
        steps: denoising steps; the model's own when None.
    """
    return performed(_Request(plain, to, steps))


@dataclass
class _Request:
    """A request that notes in `step_s` how long a sampling step took, whenever it is called."""

    pipeline: Pipeline
    to: tuple[str, ...]
    steps: int | None
    step_s: list[float] = field(default_factory=list)
    _first_s: float = 0.0

    def __call__(self) -> None:
        self.pipeline.generate([("text", PROMPT)], self.to, steps=self.steps, callback=self._note)

    def _note(self, step: int, steps: int) -> None:
        """Read the clock after the first step, in which prompts are prepared, and the last."""
        if step not in (1, steps):
            return
        wait(self.pipeline.device)
        now_s = time.perf_counter()
        if step == 1:
            self._first_s = now_s
        else:
            self.step_s.append((now_s - self._first_s) / (steps - 1))


def _of_parts(times: dict[tuple[str, ...], list[float]], to: tuple[str, ...]) -> float:
    """Return the median over the turns of the joint time over the sum of its parts'."""
    turns = zip(times[to], *(times[(name,)] for name in to), strict=True)
    return statistics.median(joint / sum(parts) for joint, *parts in turns)
