"""Protocols as suites: items of published data sets or worlds, metrics over features and texts.

A protocol (`suites/*.toml`) says what is measured; `codi.evaluation.items` finds the items;
extractors look at what comes out, batch by batch, and what they say stays on disk; metrics
(`codi.evaluation.comparing`) compare it. Every item is loaded at the model's own sizes and rates,
the true media as well as prompts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from codi import media
from codi.config import ConfigError, unknown
from codi.data.benchmarks import BENCHMARKS
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.cells import Cell, Each
from codi.evaluation.comparing import METRICS, Evidence, Metric, Number
from codi.evaluation.extractors.catalogue import OWNS, PROGRAMS, Extractors
from codi.evaluation.items import WORLD, Items, PublishedItems, WorldItems
from codi.evaluation.metrics import java
from codi.evaluation.metrics.rows import chunks, picked
from codi.evaluation.metrics.synchrony import motion_peaks, onset_times
from codi.evaluation.protocols import MetricRow, Protocol, TaskRow
from codi.evaluation.records import Ledger, Reading, Record
from codi.evaluation.report import drawn
from codi.evaluation.scoring import compared_impacts
from codi.evaluation.suites import REFERENCES_FROM, Input, Suite, Task, Truth, partner
from codi.evaluation.sweeps import curves, means
from codi.modalities import modality as modality_entry
from codi.pipeline import SamplingSettings
from codi.progress import Progress, quiet


def _true(name: str, first: int = 0) -> Task:
    """Return the task whose outputs are the true media of a modality, from an item on."""
    return Task((), (name,), path="true", measures=(), first=first)


@dataclass(frozen=True)
class _Row:
    """A row of a protocol with what it needs.

    Attributes:
        row: as it is written.
        metric: what it names.
        of: the modalities that it is about.
        made: those of them that the task makes, and whose features it reads.
        true: modalities of which it reads the same items' true media.
        sets: modalities of which it reads a set of true media, whichever items' they are.
    """

    row: MetricRow
    metric: Metric
    of: tuple[str, ...]
    made: tuple[str, ...]
    true: tuple[str, ...]
    sets: tuple[str, ...]


def _reads(protocol: Protocol) -> frozenset[str]:
    """Return the extractors and programs that rows ask for."""
    rows = [given for task in protocol.tasks for given in task.metrics]
    metrics = [METRICS[given.metric] for given in rows]
    java_too = {PROGRAMS} if any(m.program or m.tokens for m in metrics) else set()
    return frozenset({given.extractor for given in rows if given.extractor} | java_too)


def _resolved(task: Task, row: MetricRow) -> _Row:
    """Return a row with its metric and modalities; of what is not made the true media are read."""
    metric = METRICS[row.metric]
    timed = tuple(name for name in task.outputs if name in metric.times)
    of = metric.together or row.of or timed or task.outputs
    made = [name for name in metric.together[:1] or of if name in task.outputs]
    true = [name for name in of if name not in task.outputs]
    if metric.beside == "true":
        true += of
    if metric.beside == "prompt":
        true.append("text")
    sets = of if metric.beside == "set" else ()
    return _Row(row, metric, of, tuple(made), tuple(dict.fromkeys(true)), sets)


class BenchmarkSuite(Suite):
    """One protocol on its data.

    Metrics without weights or programs are left out, each with what it wants.

    Args:
        name: of the protocol.
        protocol: what is measured.
        extractors: what looks at media; they hold the model, whose sizes items are loaded at.
        root: folder of the data set, or one that holds it.
        seed: of the choice of items and of captions.
        progress: see `codi.evaluation.runner.evaluate`.

    Raises:
        ConfigError: no data (with how to get it), or no metric that can be measured.
    """

    def __init__(
        self,
        name: str,
        protocol: Protocol,
        extractors: Extractors,
        root: Path | None,
        seed: int = 0,
        progress: Progress = quiet,
    ) -> None:
        self.name, self.protocol, self.extractors = name, protocol, extractors
        self.config = extractors.pipeline.config
        self.seed, self.samples = seed, protocol.samples
        s = protocol.sampling
        self.sampling = SamplingSettings(s.sampler, s.steps, s.guidance or None, s.eta)
        world = _require_known(name, protocol)
        self.splits = (protocol.split,)
        self.available = BounceSuite.available if world else self.splits
        self.note = " ".join(text for text in (f"{protocol.title}.", protocol.note) if text)
        programs = extractors.sources.get(PROGRAMS)
        self.programs = None if programs is None else Path(programs)
        self.left_out: dict[str, str] = {}
        self.rows: dict[Task, list[_Row]] = {}
        for task_row in protocol.tasks:
            self._take(task_row)
        self.reads = _reads(protocol)
        self.tasks = tuple(self.rows)
        if self.programs and any(r.metric.tokens for some in self.rows.values() for r in some):
            java.program(java.TOKENIZER_JAR, self.programs)  # or every caption's metric would fail
        if not self.tasks:
            if not world:
                BENCHMARKS[protocol.data].folder(root)  # without data, say that first
            lacking = "; ".join(f"{what}: {why}" for what, why in self.left_out.items())
            raise ConfigError(f"suite {name}: nothing can be measured; {lacking}")
        used = {name for task in self.tasks for name in self._used(task)}
        split, most = protocol.split, protocol.samples
        self.items: dict[str, Items] = (
            {one: WorldItems(one, self.config, seed) for one in self.available}
            if world
            else {
                split: PublishedItems(
                    protocol.data, root, used, split, most, self.config, seed, progress
                )
            }
        )
        self.terms = self.items[split].terms
        chosen = self.items[split]
        if isinstance(chosen, PublishedItems) and chosen.missing:
            self.left_out["items without media"] = str(chosen.missing)
        for extractor in {r.row.extractor for some in self.rows.values() for r in some} - {""}:
            self.extractors[extractor].try_out(self.config)

    # --- what is measured ---

    def _take(self, task_row: TaskRow) -> None:
        """Keep the rows of a task that can be measured; say why the others cannot."""
        task = task_row.task
        kept = []
        for given in task_row.metrics:
            row = _resolved(task, given)
            lacking = self._lacking(row)
            if lacking:
                self.left_out[f"{task.name} {given.metric}"] = lacking
            else:
                kept.append(row)
        if kept or task.measures:
            self.rows[task] = kept

    def _lacking(self, row: _Row) -> str | None:
        if row.metric.program:
            try:
                needs = java.NEEDS.get(row.metric.program, ())
                java.program(row.metric.program, self.programs, needs)
            except ConfigError as error:
                return str(error)
        kinds = row.metric.kinds
        return self.extractors.lacking(row.row.extractor, kinds) if kinds else None

    def needs(self, task: Task) -> tuple[Task, ...]:
        """Return what has to be measured before a task: true media, and outputs made apart."""
        rows = self.rows.get(task, ())
        found = [_true(name) for name in sorted({name for row in rows for name in row.true})]
        found += [self.reference(name) for name in sorted({n for row in rows for n in row.sets})]
        if any(row.metric.beside == "apart" for row in rows):
            found.append(dataclasses.replace(task, apart=True))
        return tuple(dict.fromkeys(found))

    def reference(self, name: str) -> Task:
        """Return the true media that sets of outputs are compared with.

        Those of other items than the prompts are of, where there are always more: a model that
        copied its prompts would be too near to their own. Published tables compare with the same.
        """
        endless = self.items[self.protocol.split].count is None
        return _true(name, REFERENCES_FROM if endless else 0)

    def _kinds(self, task: Task, name: str) -> set[str]:
        """Return whose features of a modality are wanted of a task's outputs."""
        every = [r for some in self.rows.values() for r in some]
        rows: list[_Row] = []
        if task == _true(name):
            rows += [r for r in every if name in r.true]
        if task == self.reference(name):
            rows += [r for r in every if name in r.sets]
        rows += [r for r in self._rows(task) if name in r.made]
        return {r.row.extractor for r in rows if r.metric.kinds}

    def _rows(self, task: Task) -> list[_Row]:
        """Return a task's rows, those that compare it with what is made together included."""
        joint = dataclasses.replace(task, apart=False)
        beside = self.rows.get(joint, []) if task.apart else []
        return [*self.rows.get(task, []), *(r for r in beside if r.metric.beside == "apart")]

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the items; what looks at them is a matter of each task."""
        own = [self.name, self.seed, self.items[self.protocol.split].fingerprint]
        return f"{self.protocol.data}-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:12]}"

    def depends(self, task: Task) -> Any:
        """Return the sizes of a task's media, and every network that looks at its outputs."""
        return {
            "media": self._prepared((task,)),
            "timed": any(bool(row.metric.times) for row in self._rows(task)),
            "networks": {
                name: {kind: self.networks[kind] for kind in sorted(self._kinds(task, name))}
                for name in task.outputs
            },
        }

    @cached_property
    def networks(self) -> dict[str, dict[str, str]]:
        """Return the identity of every extractor, by the name that rows use."""
        used = {r.row.extractor for some in self.rows.values() for r in some if r.metric.kinds}
        return {name: self.extractors[name].identity for name in sorted(used)}

    @property
    def described(self) -> dict[str, Any]:
        """Return what a result has to say beside its numbers."""
        return {
            "title": self.protocol.title,
            "data": self.protocol.data,
            **self._counted(),
            "extractors": self.networks,
            **({"words": self._words} if any(METRICS[m].tokens for m in self._metrics) else {}),
            "media": self._prepared(self.tasks),
            **({"av_align_window_s": self.frame_s} if self._metrics & _ALIGNED else {}),
            **({"score_splits": self._splits} if self._splits else {}),
        }

    @property
    def _words(self) -> str:
        """Return what parts captions into words."""
        return "codi's own" if self.programs is None else java.TOKENIZER_JAR

    def _counted(self) -> dict[str, Any]:
        """Return how many items there are, and how many were passed over for want of a medium."""
        items = self.items[self.protocol.split]
        if not isinstance(items, PublishedItems):
            return {"items": "as many as asked for"}
        return {"items": items.count, "missing": items.missing, "damaged": len(items.damaged)}

    @property
    def _splits(self) -> dict[str, int]:
        """Return into how many parts samples are cut, by task and metric, where rows name it."""
        return {
            f"{task.name} {r.row.metric}": r.row.splits
            for task, some in self.rows.items()
            for r in some
            if r.row.splits
        }

    @property
    def _metrics(self) -> set[str]:
        return {row.row.metric for some in self.rows.values() for row in some}

    @property
    def frame_s(self) -> float:
        """Return the time from one frame of the model's clips to the next; 0 without clips."""
        clips = self.config.modalities.get(_CLIP)
        return 1.0 / clips.media["fps"] if clips else 0.0

    def _prepared(self, tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
        """Return the sizes and rates at which media are loaded."""
        used = {n for task in tasks for n in (*self._used(task), *task.outputs)}
        return {name: dict(self.config.modality(name).media) for name in sorted(used)}

    # --- items ---

    def _used(self, task: Task) -> list[str]:
        """Return the modalities that a task reads of an item."""
        true = [name for row in self._rows(task) for name in (*row.true, *row.sets)]
        true += task.outputs if task.path == "true" else ()
        return [*(given.modality for given in task.inputs), *task.kept, *true]

    def count(self, split: str) -> int | None:
        """Return how many items there are; None for a world, which has always more."""
        return self.items[split].count

    def broken(self, split: str, index: int) -> str | None:
        """Return what is wrong with the files of an item, or of its partner where prompts conflict.

        How many such items there are is said in `left_out`.
        """
        items = self.items[split]
        beside = [index, partner(index, items.count)] if self._conflicting else [index]
        why = next((why for i in beside if (why := items.broken(i))), None)
        if why is not None and isinstance(items, PublishedItems):
            count = len(items.damaged)
            self.left_out["items with damaged media"] = f"{count}, such as {why.rstrip('.')}"
        return why

    @property
    def _conflicting(self) -> bool:
        return any(given.other for task in self.tasks for given in task.inputs)

    def truth(self, split: str, index: int) -> Truth:
        """Return the facts of an item; nothing is known of published media but their captions."""
        return self.items[split].truth(index)

    def caption(self, split: str, index: int, given: Input) -> str:
        """Return one of the item's captions, the same one every time."""
        return self.items[split].caption(index, given)

    def medium(self, split: str, index: int, modality: str) -> Any:
        """Return an item's medium at the model's sizes and rates."""
        if modality_entry(modality).is_caption:
            return self.caption(split, index, Input(modality))
        return self.items[split].medium(index, modality)

    # --- what comes out ---

    def read(self, modality: str, items: Sequence[Any]) -> list[Reading]:
        """Return what the items' own reader says, and onsets and peaks if a metric asks."""
        timed = any(r.metric.times for some in self.rows.values() for r in some)
        readings = self.items[self.protocol.split].read(modality, items)
        when = _TIMES.get(modality) if timed else None
        if when is None:
            return readings
        pairs = zip(readings, items, strict=True)
        return [dataclasses.replace(found, peaks_s=when(item)) for found, item in pairs]

    def features(self, task: Task, modality: str, items: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return what extractors say of one batch, by "modality.extractor.kind"."""
        found = {}
        for name in sorted(self._kinds(task, modality)):
            for kind, rows in self.extractors[name](modality, items).items():
                found[f"{modality}.{name}.{kind}"] = rows
        return found

    def compare(
        self, task: Task, split: str, count: int, ledger_of: Callable[[Task], Ledger]
    ) -> Iterator[Cell]:
        """Yield the cells of a task's rows; what so few samples do not have is left out."""
        ledgers = [ledger_of(one) for one in (*self.needs(task), task)]
        # Items with damaged media have no record, or only those from before they were damaged.
        shared = set(range(count)).intersection(*(ledger.records for ledger in ledgers))
        for row in self.rows.get(task, ()):
            found = _Evidence(self, task, split, row, tuple(sorted(shared)), ledger_of)
            try:
                number = row.metric.compute(found, row.of)
                if not math.isfinite(number.value):
                    raise ValueError(f"the result is {number.value}; check the media")
            except ValueError as error:
                self.left_out[f"{task.name} {row.row.metric}"] = str(error)
                continue
            several = len(task.outputs) > 1
            output = "+".join(row.of)
            yield Cell(
                task=task.name,
                output=output,
                fact=f"{output} {row.row.metric}" if several else row.row.metric,
                split=split,
                value=number.value,
                n=found.n,
                chance=number.chance,
                ci95=number.ci95,
                unit="number",
                extractor=self._network(row),
                better=row.metric.better,
                paper=None if self._stands_in(row) else row.row.paper,
                each=found.each(number),
            )
        if "obedience" in task.measures:
            yield from means(task, self.terms, split, ledger_of(task).first(count))

    def plot(self, cells: Sequence[Cell]) -> str | None:
        """Return the facts that the protocol draws, else curves over weights that tasks sweep."""
        if self.protocol.plot:
            return self._drawn(cells)
        return curves(cells, self.tasks)

    def _drawn(self, cells: Sequence[Cell]) -> str | None:
        """Return the facts that the protocol names with their intervals, a row for each task."""
        several = len({cell.split for cell in cells}) > 1
        named = tuple(self.protocol.plot)
        chosen = [
            c for c in cells if c.fact in named or c.fact.endswith(tuple(f" {n}" for n in named))
        ]
        return drawn(
            chosen,
            row=lambda cell: cell.task,
            series=lambda cell: f"{cell.fact}, {cell.split}" if several else cell.fact,
        )

    def _stands_in(self, row: _Row) -> bool:
        """Return whether the model's own encoder does the work of a published network.

        What it finds is not to be held against the paper's figure.
        """
        return row.row.extractor not in OWNS and self._network(row) in OWNS

    def _network(self, row: _Row) -> str | None:
        """Return the name of the network that was really used."""
        return self.networks[row.row.extractor]["name"] if row.metric.kinds else None


def _require_known(name: str, protocol: Protocol) -> bool:
    """Return whether a protocol's data are a world's.

    Raises:
        ConfigError: no such data or split, or facts that the data do not know.
    """
    world = protocol.data == WORLD
    if not world and protocol.data not in BENCHMARKS:
        raise ConfigError(f"suite {name}: " + unknown("data", protocol.data, (WORLD, *BENCHMARKS)))
    splits = BounceSuite.available if world else BENCHMARKS[protocol.data].splits
    if protocol.split not in splits:
        raise ConfigError(f"suite {name}: " + unknown("split", protocol.split, splits))
    terms = WorldItems.terms if world else PublishedItems.terms
    metrics = {given.metric for row in protocol.tasks for given in row.metrics}
    for drawn_fact in protocol.plot:
        if drawn_fact not in metrics.union(terms.values, _COUNTED):
            said = unknown("fact or metric", drawn_fact, (*metrics, *terms.values, *_COUNTED))
            raise ConfigError(f"suite {name}: plot: {said}")
    for row in protocol.tasks:
        asked = row.measures or any(given.tells or given.shown_by for given in row.prompts)
        if asked and not terms.values:
            raise ConfigError(
                f"suite {name}: nobody knows the facts of {protocol.data}; "
                f"leave measures, tells and shown_by out of {row.task.name}"
            )
        of_world = [given.metric for given in row.metrics if METRICS[given.metric].world]
        if of_world and terms.match is None:
            raise ConfigError(
                f"suite {name}: nobody knows when anything strikes in {protocol.data}; "
                f"leave {', '.join(of_world)} out of {row.task.name}"
            )
        for given in row.task.inputs:
            shown = terms.shows.get(given.shows, ())
            for fact in given.tells or ():
                if fact not in shown:
                    said = unknown(f"fact of {given.shows}", fact, shown)
                    raise ConfigError(f"suite {name}: {said}")
    return world


@dataclass
class _Evidence(Evidence):
    """What the ledgers of one task, and of true media, hold of some items of a split."""

    suite: BenchmarkSuite
    task: Task
    split: str
    row: _Row
    indices: tuple[int, ...]
    ledger_of: Callable[[Task], Ledger]

    @property
    def n(self) -> int:  # type: ignore[override]
        """Return how many items there are."""
        return len(self.indices)

    @property
    def programs(self) -> Path | None:  # type: ignore[override]
        """Return the folder of Java programs."""
        return self.suite.programs

    def each(self, number: Number) -> Each | None:
        """Return what a number is the mean of, by the items."""
        if number.items is None:
            return None
        values = zip(self.indices, number.items.tolist(), strict=True)
        return Each(dict(values), *number.ends)

    def rows(self, modality: str, kind: str = "features", true: bool = False) -> np.ndarray:
        """Return features of what was made, or of the true media."""
        task = self.task
        if true and modality in self.row.sets:
            task = self.suite.reference(modality)
        elif true or modality not in task.outputs:
            task = _true(modality)
        extractor = self.row.row.extractor
        whole = self.indices[-1] + 1
        ledger = self.ledger_of(task)
        rows = ledger.rows(f"{modality}.{extractor}.{kind}", whole)
        rows = rows if whole == self.n else picked(rows, self.indices, ledger.path.parent)
        for chunk in chunks(self.n):
            if not np.isfinite(rows[chunk]).all():
                identity = self.suite.networks[extractor]
                raise ValueError(
                    f"{kind} of {task.name} by {identity['name']} from {identity['source']} are "
                    "not finite; check the media and that file"
                )
        return rows

    @property
    def frame_s(self) -> float:  # type: ignore[override]
        """Return the time from one frame of a clip to the next."""
        return self.suite.frame_s

    @property
    def splits(self) -> int | None:  # type: ignore[override]
        """Return into how many parts the row says that samples are cut."""
        return self.row.row.splits

    def words(self) -> list[str]:
        """Return the texts that were made."""
        return [record.readings[self.row.of[0]].words or "" for record in self._records()]

    def references(self) -> list[list[str]]:
        """Return all captions of every item."""
        items = self.suite.items[self.split]
        return [list(items.captions(index)) for index in self.indices]

    def times(self, modality: str) -> list[tuple[float, ...]]:
        """Return when something happens."""
        return [record.readings[modality].peaks_s or () for record in self._records()]

    def impacts(self) -> np.ndarray:
        """Return how well what strikes in the outputs agrees, as the items' world reads it."""
        terms = self.suite.terms
        compared = compared_impacts(self.task, terms, self._records())
        assert compared is not None
        assert terms.match is not None  # as was required of the suite
        _, first, second = compared
        return np.array([terms.match(a, b)[0] for a, b in zip(first, second, strict=True)])

    def _records(self) -> list[Record]:
        records = self.ledger_of(self.task).records
        return [records[index] for index in self.indices]

    def apart(self) -> Evidence:
        """Return the evidence of the outputs made one by one."""
        return dataclasses.replace(self, task=dataclasses.replace(self.task, apart=True))


def _onsets(item: media.Audio) -> tuple[float, ...]:
    return tuple(round(t, 5) for t in onset_times(item.samples, item.sample_rate_hz))


def _peaks(item: media.Video) -> tuple[float, ...]:
    return tuple(round(t, 5) for t in motion_peaks(item.frames, item.fps))


_CLIP = "video"
_ALIGNED = {"av_align", "av_align_gain"}
_COUNTED = ("impacts", "precision", "recall", "parses", "adds")
"""What measures count beside facts."""

_TIMES: Mapping[str, Callable[[Any], tuple[float, ...]]] = {"audio": _onsets, "video": _peaks}
