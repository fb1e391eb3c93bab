"""Measure a model: prompts in batches, samples, readings, cells. What was measured once is kept.

Every batch ends on disk, so that an interruption loses one batch at most, and a later run with the
same model and settings goes on from there, also with more samples or other tasks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from codi.build import ModelConfig
from codi.config import ConfigError, unknown
from codi.data.source import data_roots
from codi.encoders.mixing import interpolated
from codi.evaluation import results_page
from codi.evaluation.cells import Cell
from codi.evaluation.changes import with_changes
from codi.evaluation.command import Command
from codi.evaluation.extractors.own import OwnExtractor
from codi.evaluation.fingerprints import WeightDigests
from codi.evaluation.opening import SUITES, Opening, opener_of
from codi.evaluation.records import Ledger, Record
from codi.evaluation.report import (
    SAMPLING,
    SHOWN,
    media_of,
    remove_samples,
    sheet_name,
    write_report,
    write_samples,
)
from codi.evaluation.scoring import score
from codi.evaluation.suites import Input, Suite, Task, partner
from codi.modalities import modality
from codi.pipeline import Pipeline, SamplingSettings, load
from codi.progress import Progress, quiet
from codi.types import Latents
from codi.weights import missing_parts

__all__ = ["SUITES", "Run", "choose", "evaluate", "report"]


def evaluate(
    model: str | Path,
    suite: str = "bounce",
    *,
    samples: int | None = None,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    eta: float | None = None,
    guidance: float | Mapping[str, float] | None = None,
    spacing: str | None = None,
    guidance_interval: tuple[int, int] | None = None,
    reuse: int | None = None,
    batch: int = 16,
    device: str = "auto",
    dtype: str = "auto",
    data: str | Sequence[str] | None = None,
    seed: int = 0,
    extractors: Mapping[str, str] | None = None,
    results: str | Path | None = None,
    progress: Progress = quiet,
) -> list[Cell]:
    """Measure a model on a suite and write `<suite>.json`, `<suite>.md` and samples below `out`.

    Args:
        model: a shipped model's name or a folder.
        suite: a key of `codi.evaluation.opening.SUITES`: "bounce", "digits", "real", a claim, or a
            table of the paper; or a file of your own in the form of
            `codi/evaluation/suites/*.toml`.
        samples: items of each task and split; a suite with fewer items uses all of them. The
            suite's own number by default.
        out: folder of the report; finished batches are kept in its `partial`.
        tasks: names of tasks; all that the model has the parts for by default.
        splits: of the items, "trained" and "held-out"; the suite's own choice by default.
        steps: denoising steps; those of the suite or the model by default, like the next six.
        sampler: name of a sampler.
        eta: noise that the sampler adds back, where it can.
        guidance: scale of the guidance, one number, or one for each modality; the suite's own
            scales of other modalities stay.
        spacing: of the steps, as in `Pipeline.generate`, like the next two.
        guidance_interval: steps t that are guided.
        reuse: evaluations that share the inside of the diffusers.
        batch: samples made at once.
        device: where to compute; "auto" takes a GPU where there is one.
        dtype: as in `codi.load`.
        data: folder of data sets, instead of the variable CODI_DATA; of several, the first that
            has a set, or the shards of a part and split, gives them.
        extractors: file, folder or hub name of networks that metrics need, by their names.
        results: a Markdown page to bring the table and the plot into; see `results_page`.
        seed: of the items; the noise of item i has the seed i + 1 000 000 * seed.
        progress: wraps the batches of a task: (what, total) -> the steps 0 ... total - 1.

    Raises:
        ConfigError: an unknown suite, task or split, a part the model lacks, or missing data.
    """
    pipeline = load(model, device=device, dtype=dtype)
    folder = Path(out)
    opener = opener_of(suite)
    roots = data_roots(data)
    opening = Opening(pipeline.config, roots, folder, seed, progress, extractors or {}, pipeline)
    opened = opener(opening).telling_unread(opening.extractors)
    asked: dict[str, Any] = {
        "sampler": sampler,
        "eta": eta,
        "steps": steps,
        "spacing": spacing,
        "guidance_interval": guidance_interval,
        "reuse": reuse,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if sampler is not None:
        given["eta"] = eta  # a suite's own belongs to the sampler that it names
    runs = []
    for one in opened.suites:
        own = one.sampling.guidance
        scales = own if guidance is None else _merged(own, guidance, pipeline.config)
        settings = replace(one.sampling, **given, guidance=scales)
        runs.append(Run(pipeline, one, settings, folder, seed))
    opened.require_splits(splits or ())
    name = Path(suite).stem
    if results is not None:
        results_page.require(Path(results), name)
    chosen, left_out = choose(runs, name, tasks)
    said = {
        "model": Path(model).name,
        "weights": runs[0].digests.whole(),
        "seed": seed,
        "left_out": {**opened.left_out, **left_out},
    }
    cells: list[Cell] = []
    told: dict[str, Any] = {}
    for run, task in chosen:
        count = run.asked(samples)
        for needed in (*run.suite.needs(task), task):
            run.measure(needed, run.splits(splits), count, batch, progress)
        cells, told = report(runs, name, chosen, splits, samples, said)
    if not cells:
        reasons = "; ".join(f"{what}: {why}" for what, why in told["left_out"].items())
        raise ConfigError(f"nothing of {suite} could be measured: {reasons or 'no item'}")
    if results is not None:
        given_data = [data] if isinstance(data, str) else data or ()
        changed = _changed(runs)
        every = [task.name for run in runs for task in run.suite.tasks]
        command = Command(
            suite, runs[0].folder, seed, every, len(given_data), extractors or {}, changed
        )
        results_page.bring(
            Path(results),
            name,
            command.said,
            told,
            cells,
            depends={f"items of {run.suite.name}": run.suite.fingerprint for run in runs},
            order=every,
            draw=lambda whole: _drawn(runs, whole),
            asked=runs[0].asked(samples),
            judges={t.name: own for run in runs for own in [run.judges] for t in run.suite.tasks},
        )
    return cells


def choose(
    runs: Sequence[Run], suite: str, names: Sequence[str] | None
) -> tuple[list[tuple[Run, Task]], dict[str, str]]:
    """Return the tasks to do, and why others of the suites are left out.

    Raises:
        ConfigError: a task that does not exist, or that was named and cannot be done.
    """
    every = {task.name: (run, task) for run in runs for task in run.suite.tasks}
    for name in names or ():
        if name not in every:
            raise ConfigError(unknown(f"task of suite {suite!r}:", name, every))
    chosen, left_out = [], {}
    for name, (run, task) in every.items():
        if names is not None and name not in names:
            continue
        lacking = run.lacking(task)
        if lacking:
            left_out[name] = "the model has no " + ", ".join(lacking)
        else:
            chosen.append((run, task))
    if (left_out and names is not None) or not chosen:
        task_name, why = next(iter(left_out.items()))
        raise ConfigError(f"task {task_name}: {why}; train it first, or leave the task out")
    return chosen, left_out


def report(
    runs: Sequence[Run],
    name: str,
    tasks: Sequence[tuple[Run, Task]],
    splits: Sequence[str] | None,
    samples: int | None,
    said: Mapping[str, Any],
) -> tuple[list[Cell], dict[str, Any]]:
    """Write the report of all finished tasks; return the cells of `tasks`, and its settings.

    Tasks of earlier runs that are as complete are in the files as well.
    """
    measured = {
        task.name: run.cells(task, run.splits(splits), run.asked(samples))
        for run in runs
        for task in run.suite.tasks
    }
    by_task, alone = with_changes([task for run in runs for task in run.suite.tasks], measured)
    cells = [cell for found in by_task.values() for cell in found]
    settings = described(runs, name, splits, samples, said)
    settings["left_out"] |= alone
    for run in runs:
        run.show(run.splits(splits), run.asked(samples))
    write_report(runs[0].out, name, settings, cells, settings["splits"], _drawn(runs, cells))
    return [cell for _, task in tasks for cell in by_task[task.name]], settings


def described(
    runs: Sequence[Run],
    name: str,
    splits: Sequence[str] | None,
    samples: int | None,
    said: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings of a measurement, as its report has them."""
    first = runs[0]
    sampling = _sampling(runs)
    del sampling["to"]
    own: dict[str, Any] = {"suite": name, "note": " ".join(run.suite.note for run in runs)}
    own["media"] = media_of(first.pipeline.config, (t for run in runs for t in run.suite.tasks))
    left_out = dict(said["left_out"])
    for run in runs:
        networks = own.get("extractors", {})
        own |= run.suite.described
        if networks:
            own["extractors"] = {**networks, **own["extractors"]}
        left_out |= run.suite.left_out
    columns = list(dict.fromkeys(split for run in runs for split in run.splits(splits)))
    counted = [run.used(split, samples) for run in runs for split in run.splits(splits)]
    own["samples"] = max(run.sampled for run in runs) or max(counted, default=0)
    own["samples_of_suite"] = max(run.suite.samples for run in runs)
    return {**own, **sampling, **said, "splits": columns, "left_out": left_out}


def _sampling(runs: Sequence[Run]) -> dict[str, Any]:
    """Return how what the suites sample is sampled, every default filled in."""
    sampled = {n for run in runs for t in run.suite.tasks if t.path == "model" for n in t.outputs}
    pipeline = runs[0].pipeline
    made = [n for n in pipeline.config.generated if n in sampled]
    return pipeline.describe(runs[0].sampling_of(made), made)


def _changed(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the settings of the sampling that are not the suite's own or the model's."""
    own = _sampling([replace(run, settings=run.suite.sampling) for run in runs])
    found = _sampling(runs)
    return {name: found[name] for name in SAMPLING if found[name] not in (None, {}, own[name])}


def _drawn(runs: Sequence[Run], cells: Sequence[Cell]) -> str | None:
    """Return the first suite's plot of cells, where one has any."""
    return next((plot for run in runs if (plot := run.suite.plot(cells)) is not None), None)


_Guidance = float | Mapping[str, float] | None


def _merged(own: _Guidance, given: _Guidance, config: ModelConfig) -> _Guidance:
    """Return a suite's guidance with what is given of it for some modalities in its place."""
    if not isinstance(given, Mapping):
        return given
    for name in given:
        if name not in config.modalities:
            raise ConfigError(unknown("modality to guide:", name, config.modalities))
    return {**own, **given} if isinstance(own, Mapping) else given


@dataclass
class Run:
    """A model, a suite and settings: all that the numbers depend on."""

    pipeline: Pipeline
    suite: Suite
    settings: SamplingSettings
    out: Path
    seed: int
    scores: dict[tuple[str, str, int], list[Cell]] = field(default_factory=dict)
    sampled: int = 0
    """How many samples of a task the scores come from, at most."""
    sheets: bool = True
    """Whether samples are kept to be looked at."""

    # --- what to do ---

    def choose(self, names: Sequence[str] | None) -> tuple[list[Task], dict[str, str]]:
        """Return the tasks to do, and why others of the suite are left out.

        Raises:
            ConfigError: a task that does not exist, or that was named and cannot be done.
        """
        chosen, left_out = choose([self], self.suite.name, names)
        return [task for _, task in chosen], left_out

    def splits(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """Return the splits to measure: the suite's own choice, or what it has of those asked."""
        if asked is None:
            return self.suite.splits
        return tuple(split for split in asked if split in self.suite.available)

    def asked(self, samples: int | None) -> int:
        """Return the number of samples: the suite's own, if none is given."""
        return self.suite.samples if samples is None else samples

    def _parts(self, task: Task) -> list[str]:
        """Return the parts ("role.name") that a task's outputs come through."""
        config, streams = self.pipeline.config, [*task.outputs, *task.kept]
        if task.path == "true":
            return []
        if task.path == "codec":
            return config.parts(("codecs",), streams)
        prompts = [given.modality for given in task.inputs]
        together = [[name] for name in task.outputs] if task.apart else [streams]
        found = [p for some in together for p in config.sampling_parts(prompts, some, task.kept)]
        return list(dict.fromkeys(found + config.parts(("codecs",), streams)))

    def lacking(self, task: Task) -> list[str]:
        """Return what the model has not that a task needs."""
        config = self.pipeline.config
        used = [*task.outputs, *task.kept, *(given.modality for given in task.inputs)]
        strange = [name for name in used if name not in config.modalities]
        made = task.outputs if task.path == "model" else ()
        mute = [f"{n} output" for n in made if n in config.modalities and n not in config.generated]
        if strange or mute:
            return [*strange, *mute]
        absent = missing_parts(self.folder, config)
        return [part for part in self._parts(task) if part in absent]

    def _ledger(self, task: Task, split: str) -> Ledger:
        """Return the records of a task."""
        kept = self._kept(task, split)
        return Ledger(kept.with_name(f"{kept.name}.jsonl"))

    def _kept(self, task: Task, split: str) -> Path:
        """Return the folder of a task's samples; its records lie beside it.

        All that they depend on is in its name.
        """
        depends = [
            self.suite.fingerprint,
            task.key,
            self.suite.depends(task),
            self.seed,
            self.digests.of(self._parts(task)),
            self._sampling(task),
        ]
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / "partial" / self.suite.name / f"{task.name}-{split}-{key}"

    @property
    def folder(self) -> Path:
        """Return the folder of the model."""
        assert self.pipeline.folder is not None
        return self.pipeline.folder

    @property
    def judges(self) -> list[str]:
        """Return the names of the networks that there are by now to read facts, as reports do."""
        networks = self.suite.described.get("extractors", {}).items()
        trained = [(name, one) for name, one in networks if "trained_on" in one]
        return [name for name, one in trained if one["name"] != OwnExtractor.name]

    @cached_property
    def digests(self) -> WeightDigests:
        """Return the digests of the model's files."""
        return WeightDigests(self.folder, self.pipeline.config)

    def _sampling(self, task: Task) -> dict[str, Any]:
        """Return the resolved settings that the numbers of a task depend on."""
        if task.path == "true":
            return {}
        config = self.pipeline.config
        described = self.pipeline.describe(self.sampling_of(task.outputs), task.outputs)
        described["schedule"] = repr(config.schedule)
        described["modalities"] = repr([config.modality(n) for n in (*task.outputs, *task.kept)])
        tables = [config.part(*part.split(".", 1)) for part in self._parts(task)]
        described["parts"] = repr((config.wiring, tables))
        described["interpolation"] = config.interpolation
        several = len({*task.outputs, *task.kept}) > 2 and not task.apart
        named: tuple[str, ...] = ("dtype", "compute_dtype", "modalities", "parts")
        if task.path == "model":
            named += ("schedule", "sampler", "steps", "spacing", "eta", "guidance")
            # Later settings count only where they change something: earlier records stay valid.
            named += ("guidance_interval",) if described["guidance_interval"] else ()
            named += ("reuse",) if described["reuse"] > 1 else ()
            named += ("interpolation",) if several and config.interpolation != "mean" else ()
        return {name: described[name] for name in named}

    def sampling_of(self, outputs: Sequence[str]) -> SamplingSettings:
        """Return the settings with the guidance of `outputs` alone."""
        guidance = self.settings.guidance
        if isinstance(guidance, Mapping):
            guidance = {name: scale for name, scale in guidance.items() if name in outputs}
        return replace(self.settings, guidance=guidance)

    # --- doing it ---

    def measure(
        self, task: Task, splits: Sequence[str], samples: int, batch: int, progress: Progress
    ) -> None:
        """Make and read the samples of a task that no earlier run has.

        Where records are there and their sheet is not, its samples are made once more.
        """
        ledgers = {split: self._ledger(task, split) for split in splits}
        chunks: list[tuple[str, list[int]]] = []
        for split, ledger in ledgers.items():
            count = self._count(split, samples)
            if self.sheets and ledger.records and not self._sheet(task, split).is_file():
                chunks.append((split, [r.index for r in ledger.first(count)][: min(batch, SHOWN)]))
            missing = ledger.missing(count)
            chunks += [(split, missing[i : i + batch]) for i in range(0, len(missing), batch)]
        for step in progress(task.name, len(chunks)) if chunks else ():
            split, some = chunks[step]
            indices = [index for index in some if not self.suite.broken(split, index)]
            if not indices:
                continue
            outputs = _PATHS[task.path](self, task, split, [task.first + i for i in indices])
            if self.sheets and not self._sheet(task, split).is_file():
                self._draw(task, split, indices[:SHOWN], outputs)
            if indices[0] not in ledgers[split].records:
                ledgers[split].add(*self._records(task, split, indices, outputs))

    def _count(self, split: str, samples: int) -> int:
        available = self.suite.count(split)
        return samples if available is None else min(samples, available)

    def used(self, split: str, samples: int | None) -> int:
        """Return how many items of a split are measured: what is asked for, or all there are."""
        return self._count(split, self.asked(samples))

    def _records(
        self,
        task: Task,
        split: str,
        indices: Sequence[int],
        outputs: Mapping[str, Sequence[Any]],
    ) -> tuple[list[Record], dict[str, np.ndarray]]:
        """Return the records of one batch, and the features that are kept beside them."""
        readings = {name: self.suite.read(name, items) for name, items in outputs.items()}
        truths = [self.suite.truth(split, task.first + index) for index in indices]
        records = [
            Record(
                index, truth.facts, truth.impacts_s, {n: found[i] for n, found in readings.items()}
            )
            for i, (index, truth) in enumerate(zip(indices, truths, strict=True))
        ]
        features: dict[str, np.ndarray] = {}
        samples = [
            dict(zip(outputs, one, strict=True)) for one in zip(*outputs.values(), strict=True)
        ]
        for name in outputs:
            kind = self.pipeline.config.media(name)  # a clip is looked at with its sound
            items = [kind.with_others(sample[name], sample) for sample in samples]
            features |= self.suite.features(task, name, items)
        return records, features

    def _sheet(self, task: Task, split: str) -> Path:
        return self._kept(task, split) / sheet_name(task, split)

    def _draw(
        self, task: Task, split: str, indices: Sequence[int], outputs: Mapping[str, Sequence[Any]]
    ) -> None:
        """Keep what a task's first samples look and sound like."""
        prompts = [
            (given.modality, [self._given(given, split, task.first + index) for index in indices])
            for given in task.inputs
        ]
        first = {name: items[: len(indices)] for name, items in outputs.items()}
        kept = self._kept(task, split)
        write_samples(kept, self.pipeline.config, task, split, prompts, first)

    def _given(self, given: Input, split: str, index: int) -> Any:
        """Return the prompt of an item, or of its partner: a sentence or a medium."""
        index = partner(index, self.suite.count(split)) if given.other else index
        if modality(given.modality).is_caption:
            return self.suite.caption(split, index, given)
        return self.suite.medium(split, index, given.modality)

    def _fitted(self, name: str, items: Iterable[Any]) -> list[Any]:
        """Return the arrays of objects at the model's sizes and rates."""
        media = self.pipeline.config.media(name)
        return [media.to_array(media.load(item)[0]) for item in items]

    def _true(self, task: Task, split: str, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Return media as the suite has them."""
        return {n: [self.suite.medium(split, i, n) for i in indices] for n in task.outputs}

    def _coded(self, task: Task, split: str, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Return media after their codec, encoded and decoded."""
        found = self._true(task, split, indices)
        encode, fitted = self.pipeline.encode, self._fitted
        return self.pipeline.decode({n: encode(n, fitted(n, items)) for n, items in found.items()})

    def _made(self, task: Task, split: str, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Return what the model makes of the items' prompts, all outputs together or each alone."""
        pipeline = self.pipeline
        contexts, against = [], []
        for given in task.inputs:
            prompts = [self._given(given, split, index) for index in indices]
            arrays = self._fitted(given.modality, prompts)
            contexts.append(pipeline.encode_prompts(given.modality, arrays))
            against.append(pipeline.encode_unprompted(given.modality, arrays))
        context, empty = interpolated(contexts, task.shares), interpolated(against, task.shares)
        kept = {
            name: pipeline.encode(
                name, self._fitted(name, [self.suite.medium(split, i, name) for i in indices])
            )
            for name in task.kept
        }
        seeds = [index + 1_000_000 * self.seed for index in indices]
        latents: Latents = {}
        for outputs in [(name,) for name in task.outputs] if task.apart else [task.outputs]:
            latents |= pipeline.sample(
                context,
                outputs,
                seeds,
                settings=self.sampling_of(outputs),
                against=empty,
                kept=kept,
            )
        return pipeline.decode(latents)

    # --- what came out ---

    def records(self, task: Task, split: str, samples: int) -> list[Record]:
        """Return what was read from the first samples of a task, which `measure` made."""
        return self._ledger(task, split).first(self._count(split, samples))

    def cells(self, task: Task, splits: Sequence[str], samples: int) -> list[Cell]:
        """Return what is measured of a task, where it is complete."""
        if self.lacking(task):
            return []
        cells = []
        for split in splits:
            count = self._count(split, samples)
            key = (task.name, split, count)
            if key not in self.scores:
                ledgers = {t: self._ledger(t, split) for t in (*self.suite.needs(task), task)}
                missing = {i for ledger in ledgers.values() for i in ledger.missing(count)}
                records = ledgers[task].first(count)
                if not records or not all(self.suite.broken(split, i) for i in sorted(missing)):
                    continue
                self.sampled = max(self.sampled, len(records))
                self.scores[key] = [
                    *score(task, self.suite.terms, split, records),
                    *self.suite.compare(task, split, count, ledgers.__getitem__),
                ]
            cells += self.scores[key]
        return cells

    def show(self, splits: Sequence[str], samples: int) -> None:
        """Put the samples of the tasks that have cells where reports show them.

        Those of other settings, which an earlier run has put there, go.
        """
        folder = self.out / "samples" / self.suite.name
        together = {task: (*self.suite.needs(task), task) for task in self.suite.tasks}
        for task in {task for some in together.values() for task in some}:
            for split in self.suite.available:
                remove_samples(folder, task, split)
        done = [
            (one, split)
            for task, some in together.items()
            for split in splits
            if (task.name, split, self._count(split, samples)) in self.scores
            for one in some
        ]
        for task, split in done:
            kept = self._kept(task, split)
            if kept.is_dir():
                shutil.copytree(kept, folder, dirs_exist_ok=True)


_PATHS: dict[str, Callable[[Run, Task, str, Sequence[int]], dict[str, list[Any]]]] = {
    "true": Run._true,
    "codec": Run._coded,
    "model": Run._made,
}
