"""Measurements as data, first of all the paper's: `suites/*.toml` to tasks and the metrics of each.

A protocol says which data, which split, what goes in and comes out, which metric over which
network's features, how many samples, how they are sampled, and what the paper reports. Names are
checked when it is read. It knows no reader, no network and no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from codi.config import ConfigError, build, load_toml, unknown
from codi.diffusion import SAMPLERS
from codi.evaluation.comparing import METRICS
from codi.evaluation.scoring import MEASURES
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
        splits: into how many parts the samples are cut, of which the metric is the mean; as is the
            custom by default.

    Raises:
        ConfigError: an unknown metric or modality, an extractor that the metric does not read, or
            parts that it does not cut or that are none.
    """

    metric: str
    extractor: str = ""
    of: tuple[str, ...] = ()
    paper: float | None = None
    splits: int | None = None

    def __post_init__(self) -> None:
        """Refuse names that do not exist, and what would be ignored."""
        if self.metric not in METRICS:
            raise ConfigError(unknown("metric", self.metric, METRICS))
        if self.extractor and not METRICS[self.metric].kinds:
            raise ConfigError(f"{self.metric} reads no extractor; leave out {self.extractor!r}")
        if self.splits is not None and not METRICS[self.metric].cuts:
            raise ConfigError(f"{self.metric} is no mean over parts; leave out splits")
        if self.splits is not None and self.splits < 1:
            raise ConfigError(f"{self.metric}: splits is {self.splits}; give 1 or more")
        _require_modalities(self.of)


@dataclass(frozen=True)
class InputRow:
    """A prompt with more to say than its modality; see `codi.evaluation.suites.Input`.

    Attributes:
        modality: what is given.
        tells: the facts that a written prompt tells; all by default.
        shown_by: what a written prompt describes; by default the items' own choice, a clip.
        other: whether it is of the item's partner, and so conflicts with the rest.

    Raises:
        ConfigError: an unknown modality, or words about a prompt that is not written.
    """

    modality: str
    tells: tuple[str, ...] = ()
    shown_by: str = ""
    other: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not exist, or would be ignored."""
        _require_modalities((self.modality, *([self.shown_by] if self.shown_by else ())))
        if (self.tells or self.shown_by) and not modality(self.modality).is_caption:
            raise ConfigError(f"tells and shown_by are of written prompts, not of {self.modality}")


@dataclass(frozen=True)
class TaskRow:
    """What goes in, what comes out, and how it is measured; see `codi.evaluation.suites.Task`.

    Attributes:
        inputs: prompts; a modality's name is a prompt of which nothing else has to be said.
        metrics: what compares sets, or outputs with each other.
        measures: of facts, on data that know them.
        against: names of other tasks that make the same of other prompts, such as fewer.

    Raises:
        ConfigError: an unknown name, or values that would fail, or be ignored, after the sampling.
    """

    inputs: tuple[str | InputRow, ...]
    outputs: tuple[str, ...]
    metrics: tuple[MetricRow, ...] = ()
    kept: tuple[str, ...] = ()
    apart: bool = False
    path: MediaPath = "model"
    measures: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    label: str = ""
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would fail, or be ignored, after the sampling."""
        given = [prompt.modality for prompt in self.prompts]
        _require_modalities(self.outputs)
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ConfigError(f"outputs {list(self.outputs)}: name one or more, each once")
        for name in self.kept:
            if name not in given:
                raise ConfigError(unknown("input that is kept:", name, given))
        for name in self.measures:
            if name not in MEASURES:
                raise ConfigError(unknown("measure", name, MEASURES))
            self._require_counted(name)
        if bool(given) != (self.path == "model"):
            raise ConfigError(f"{len(given)} inputs with path {self.path!r}; only a model has any")
        labels = [given.label for given in self.task.inputs]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"inputs {', '.join(labels)}: one twice; only another's differs")
        if self.weights and len(self.weights) != len(given):
            raise ConfigError(f"{len(self.weights)} weights for {len(given)} inputs")
        if self.weights and (min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6):
            raise ConfigError(f"weights {list(self.weights)}: give shares from 0 with the sum 1")
        if self.apart and len(self.outputs) < 2:
            raise ConfigError(
                f"{self.task.name}: one output is apart already; leave out apart, or name two"
            )
        for row in self.metrics:
            self._require_fitting(row)

    def _require_counted(self, measure: str) -> None:
        """Raise ConfigError for a measure that would count nothing in this task."""
        follows = bool(self.kept) or self.path != "model"
        timed = sum(modality(name).in_time for name in self.outputs)
        wants = {
            "captions": (any(map(_is_caption, self.outputs)), "a written output"),
            "impacts": (
                timed == 2 or (timed == 1 and follows),
                "two outputs that go on in time, or one beside a stream that is kept",
            ),
            "agreement": (len(self.outputs) > 1, "two outputs or more"),
            "obedience": (len(self.inputs) > 1, "two inputs or more"),
            "sources": (len(self.inputs) > 1, "two inputs or more"),
        }
        fits, wanted = wants.get(measure, (True, ""))
        if not fits:
            raise ConfigError(
                f"{self.task.name}: measure {measure} is of {wanted}; leave it out of this task"
            )

    def _require_fitting(self, row: MetricRow) -> None:
        """Raise ConfigError for a metric that has not what it compares in this task."""
        metric, where = METRICS[row.metric], f"{self.task.name}: {row.metric}"
        of = row.of or self.outputs
        if metric.compares and len(of) != metric.compares:
            raise ConfigError(
                f"{where} is about {metric.compares} of the modalities, not {len(of)} "
                f"({', '.join(of)}); say which with of"
            )
        settled = metric.times or metric.together
        if row.of and not metric.compares:
            raise ConfigError(f"{where} is about {' and '.join(settled)}; leave out of")
        if metric.tokens and not (of[0] in self.outputs and _is_caption(of[0])):
            raise ConfigError(
                f"{where} compares captions that are made, not {of[0]}; name a written output "
                "with of, or leave it out"
            )
        absent = [name for name in settled if name not in self.outputs]
        if absent:
            raise ConfigError(
                f"{where} compares {' with '.join(settled)}; add {', '.join(absent)} to the "
                "outputs, or leave it out"
            )
        if metric.beside == "apart" and (self.apart or len(self.outputs) < 2):
            raise ConfigError(
                f"{where} compares several outputs made together with the same made apart; leave "
                "it out of this task"
            )

    @property
    def prompts(self) -> tuple[InputRow, ...]:
        """Return the inputs, each with all that is said of it."""
        return tuple(InputRow(row) if isinstance(row, str) else row for row in self.inputs)

    @property
    def task(self) -> Task:
        """Return the task."""
        return Task(
            inputs=tuple(
                Input(row.modality, row.tells or None, row.shown_by or None, row.other)
                for row in self.prompts
            ),
            outputs=self.outputs,
            kept=self.kept,
            apart=self.apart,
            path=self.path,
            measures=self.measures,
            weights=self.weights,
            label=self.label,
            against=self.against,
        )


def _is_caption(name: str) -> bool:
    return modality(name).is_caption


def _require_modalities(given: Iterable[str]) -> None:
    """Raise ConfigError for a modality that does not exist."""
    for name in given:
        modality(name)


@dataclass(frozen=True)
class SamplingRow:
    """How the paper samples; None takes the model's own. Guidance is a scale by modality.

    Raises:
        ConfigError: an unknown sampler or modality, no step, or an eta that is no share.
    """

    sampler: str | None = None
    steps: int | None = None
    eta: float | None = None
    guidance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would fail, or be ignored, when it is used."""
        _require_modalities(self.guidance)
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise ConfigError(unknown("sampler", self.sampler, SAMPLERS))
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; give 1 or more")
        if self.eta is not None and not 0.0 <= self.eta <= 1.0:
            raise ConfigError(f"eta is {self.eta}; give 0 (no fresh noise) to 1 (ancestral)")


@dataclass(frozen=True)
class Protocol:
    """One table of the paper, or one of its claims on a world where it can be tested.

    Attributes:
        title: what it measures.
        data: a name of `codi.data.benchmarks.BENCHMARKS`, or "bounce" for that world.
        split: of the data.
        samples: items, as many as there are at most; a random choice that the seed decides.
        note: what the paper leaves open, and what is done here.
        plot: the facts or metrics that are drawn with their intervals, by the last words of their
            rows, such as "gain"; none by default.
    """

    title: str
    data: str
    split: str
    samples: int
    tasks: tuple[TaskRow, ...]
    note: str = ""
    plot: tuple[str, ...] = ()
    sampling: SamplingRow = field(default_factory=SamplingRow)

    def __post_init__(self) -> None:
        """Refuse two tasks of one name, what cannot be compared with another, and no items."""
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; give 1 or more")
        names = [row.task.name for row in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two tasks are called {name}; give one of them a label")
        by_name = dict(zip(names, self.tasks, strict=True))
        for name, row in by_name.items():
            others = {other: one for other, one in by_name.items() if other != name}
            for other in row.against:
                if other not in others:
                    raise ConfigError(f"{name}: against: {unknown('other task', other, others)}")
                _require_alike(row, others[other])


def _require_alike(row: TaskRow, other: TaskRow) -> None:
    """Raise ConfigError for two tasks whose items cannot be compared one by one."""
    where = f"{row.task.name}: against {other.task.name}"
    if (row.outputs, row.kept, row.apart) != (other.outputs, other.kept, other.apart):
        raise ConfigError(f"{where}: that task does not make the same; name one that does")
    found = [{*one.measures, *(metric.metric for metric in one.metrics)} for one in (row, other)]
    if not found[0] & found[1]:
        raise ConfigError(f"{where}: they have no measure or metric in common; give both facts")


@cache
def protocol_names() -> tuple[str, ...]:
    """Return the names of all protocols, "table2" before "table10"."""
    return tuple(sorted((p.stem for p in FOLDER.glob("*.toml")), key=lambda n: (len(n), n)))


def load_protocol(source: str | Path) -> Protocol:
    """Return a protocol: one of `protocol_names`, or a file of the same form, which ends in .toml.

    Raises:
        ConfigError: no such file, one that is no TOML, or an unknown key or a value of the wrong
            type in it.
    """
    path = Path(source)
    return build(Protocol, load_toml(path if path.suffix else FOLDER / f"{source}.toml"), path.name)
