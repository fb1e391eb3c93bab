"""Measurements as data, first of all the paper's: `suites/*.toml` to tasks and the metrics of each.

A protocol says which data, which split, what goes in and comes out, which metric over which
network's features, how many samples, how they are sampled, and what the paper reports. It knows no
reader, no network and no model.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from codi.config import ConfigError, build, unknown
from codi.evaluation.suites import Input, Task
from codi.evaluation.suites import Path as MediaPath
from codi.modalities import modality

FOLDER = Path(__file__).with_name("suites")


@dataclass(frozen=True)
class MetricRow:
    """One number that a task is measured by.

    Attributes:
        metric: a name of `codi.evaluation.comparing.METRICS`.
        extractor: whose features it compares; none for metrics of texts and times.
        of: the modalities that it is about; the task's only output by default.
        paper: the paper's figure.
    """

    metric: str
    extractor: str = ""
    of: tuple[str, ...] = ()
    paper: float | None = None


@dataclass(frozen=True)
class TaskRow:
    """What goes in, what comes out, and how it is measured; see `codi.evaluation.suites.Task`.

    Attributes:
        metrics: what compares sets, or outputs with each other.
        measures: of facts, on data that know them.
        tells: the facts that written prompts tell; all by default.
        others: the inputs that come from the item's partner and so conflict with the rest.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metrics: tuple[MetricRow, ...] = ()
    kept: tuple[str, ...] = ()
    apart: bool = False
    path: MediaPath = "model"
    measures: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    tells: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would fail, or be ignored, after the sampling."""
        if self.weights and len(self.weights) != len(self.inputs):
            raise ConfigError(f"{len(self.weights)} weights for {len(self.inputs)} inputs")
        if self.weights and (min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6):
            raise ConfigError(f"weights {list(self.weights)}: give shares from 0 with the sum 1")
        for name in self.others:
            if name not in self.inputs:
                raise ConfigError(unknown("input that is another item's:", name, self.inputs))

    @property
    def task(self) -> Task:
        """Return the task."""
        inputs = tuple(
            Input(name, self._told(name), other=name in self.others) for name in self.inputs
        )
        outputs, kept = self.outputs, self.kept
        return Task(inputs, outputs, kept, self.apart, self.path, self.measures, self.weights)

    def _told(self, name: str) -> tuple[str, ...] | None:
        return (self.tells or None) if modality(name).is_caption else None


@dataclass(frozen=True)
class SamplingRow:
    """How the paper samples; None takes the model's own. Guidance is a scale by modality."""

    sampler: str | None = None
    steps: int | None = None
    eta: float | None = None
    guidance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """One table of the paper, or one of its claims on a world where it can be tested.

    Attributes:
        title: what it measures.
        data: a name of `codi.data.benchmarks.BENCHMARKS`, or "bounce" for that world.
        split: of the data.
        samples: items, as many as there are at most; a random choice that the seed decides.
        note: what the paper leaves open, and what is done here.
    """

    title: str
    data: str
    split: str
    samples: int
    tasks: tuple[TaskRow, ...]
    note: str = ""
    sampling: SamplingRow = field(default_factory=SamplingRow)


@cache
def protocol_names() -> tuple[str, ...]:
    """Return the names of all protocols, "table2" before "table10"."""
    return tuple(sorted((p.stem for p in FOLDER.glob("*.toml")), key=lambda n: (len(n), n)))


def load_protocol(name: str) -> Protocol:
    """Return a protocol.

    Raises:
        ConfigError: its file holds an unknown key or a value of the wrong type.
    """
    path = FOLDER / f"{name}.toml"
    return build(Protocol, tomllib.loads(path.read_text(encoding="utf-8")), path.name)
