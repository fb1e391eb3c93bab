"""Fidelity against cost of sampling: how few evaluations of the networks say the same facts.

Every setting makes the same items from the same noise, so that settings are compared item by item,
which tells far smaller differences than two separate shares would. Samples are kept as those of
`evaluate`; a second call only adds what is new.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from codi.build import ModelConfig
from codi.diffusion import SAMPLERS, GuidanceRule
from codi.evaluation.bounce import BounceSuite
from codi.evaluation.plot import Point, scatter
from codi.evaluation.runner import Run
from codi.evaluation.scoring import compared_impacts
from codi.evaluation.statistics import NORMAL_95, Interval, change_interval
from codi.evaluation.suites import Task
from codi.media import atomic_write_text
from codi.pipeline import Pipeline, SamplingSettings, load
from codi.progress import Progress, quiet
from codi.unets.reuse import DeepFeatures

TOLERANCE = 0.01
"""One point: how far below the reference a fact may be."""

SURE_FROM = math.ceil(NORMAL_95**2 * (1.0 / TOLERANCE - 1.0))
"""Items from which on an interval can be as narrow as that: if none of them changes."""

SPLIT = "trained"


@dataclass(frozen=True)
class Grid:
    """Settings to try: all samplers, spacings and steps without, and the model's own with the rest.

    Attributes:
        steps: numbers of steps; `reference` is the number that all are compared with.
        samplers, spacings: names; the model's own where there are none.
        intervals: of guidance, beside the model's own.
        reuse: evaluations that share the inside of the diffusers, beside the model's own.
    """

    steps: tuple[int, ...] = (20, 15, 12, 10, 8, 6)
    samplers: tuple[str, ...] = ()
    spacings: tuple[str, ...] = ()
    intervals: tuple[tuple[int, int], ...] = ()
    reuse: tuple[int, ...] = ()
    reference: int = 50

    def settings(self, config: ModelConfig) -> list[SamplingSettings]:
        """Return all settings, the reference first."""
        own = config.sampling
        found = [SamplingSettings(own.sampler, self.reference, spacing=own.spacing)]
        names = itertools.product(self.samplers or (own.sampler,), self.spacings or (own.spacing,))
        found += [
            SamplingSettings(name, steps, spacing=spacing)
            for name, spacing in names
            for steps in self.steps
        ]
        cheaper = itertools.product((None, *self.intervals), (None, *self.reuse), self.steps)
        found += [
            SamplingSettings(
                own.sampler, steps, spacing=own.spacing, guidance_interval=interval, reuse=reuse
            )
            for interval, reuse, steps in cheaper
        ]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Fact:
    """How often a fact is right, and how much more often than with the reference, item by item."""

    task: str
    fact: str
    value: float
    difference: float
    ci95: Interval  # Tango's or the bootstrap's: items that all stay as they were may yet change


@dataclass(frozen=True)
class Outcome:
    """One setting: what it costs, and what it keeps.

    Attributes:
        settings: as resolved.
        evaluations: of the networks, by task: a guided step counts twice, and a step that reuses
            the inside of a network as the share of its operations.
        facts: of all tasks.
    """

    settings: dict[str, Any]
    evaluations: dict[str, float]
    facts: tuple[Fact, ...]

    @property
    def mean(self) -> float:
        """Return the mean over the facts."""
        return float(np.mean([fact.value for fact in self.facts]))

    @property
    def worst(self) -> Fact:
        """Return the fact that lost most against the reference."""
        return min(self.facts, key=lambda fact: fact.difference)

    @property
    def keeps(self) -> bool:
        """Say whether every fact, as measured, stays within a point of the reference."""
        return self.worst.difference >= -TOLERANCE

    @property
    def surely(self) -> bool:
        """Say whether the interval of every fact does."""
        return all(fact.ci95[0] >= -TOLERANCE for fact in self.facts)

    @property
    def fails(self) -> bool:
        """Say whether the interval of some fact lies below it."""
        return any(fact.ci95[1] < -TOLERANCE for fact in self.facts)

    @property
    def cost(self) -> float:
        """Return the evaluations of all tasks together."""
        return sum(self.evaluations.values())

    @property
    def name(self) -> str:
        """Return what sets it apart, without its steps."""
        s = self.settings
        words = [s["sampler"], s["spacing"]]
        if s["guidance_interval"] is not None:
            words.append("guided {}-{}".format(*s["guidance_interval"]))
        words += [f"reuse {s['reuse']}"] * (s["reuse"] > 1)
        return " ".join(words)


def compare_sampling(
    model: str | Path,
    grid: Grid,
    *,
    out: Path,
    samples: int = 100,
    tasks: Sequence[str] = ("text-to-image", "text-to-audio"),
    batch: int = 16,
    device: str = "auto",
    seed: int = 0,
    progress: Progress = quiet,
) -> list[Outcome]:
    """Measure all settings of a grid; write `sampling.json`, `.md` and `.svg` below `out`.

    Args:
        model: a shipped model's name or a folder.
        grid: the settings.
        out: folder of the report; finished batches are kept in its `partial`.
        samples: items of each task.
        tasks: names of tasks of the suite "bounce".
        batch: samples made at once.
        device: where to compute.
        seed: as in `evaluate`.
        progress: as in `evaluate`.

    Raises:
        ConfigError: an unknown task, sampler or spacing, or a part that the model lacks.
    """
    pipeline = load(model, device=device)
    suite = BounceSuite(seed)
    outcomes: list[Outcome] = []
    before: dict[str, dict[str, np.ndarray]] = {}
    for settings in grid.settings(pipeline.config):
        run = Run(pipeline, suite, settings, out, seed, sheets=False)
        chosen, _ = run.choose(tasks)
        facts: list[Fact] = []
        for task in chosen:
            run.measure(task, (SPLIT,), samples, batch, progress)
            right = _right(run, task, samples)
            facts += _compared(task, right, before.get(task.name))
            before.setdefault(task.name, right)
        resolved = pipeline.describe(settings, pipeline.config.generated)
        costs = {task.name: evaluations(pipeline, settings, task.outputs) for task in chosen}
        named = ("sampler", "spacing", "steps", "guidance_interval", "reuse")
        outcomes.append(
            Outcome({name: resolved[name] for name in named}, costs, tuple(facts)),
        )
        _write(out, Path(model).name, samples, outcomes)  # an interruption loses one setting
    return outcomes


def _right(run: Run, task: Task, samples: int) -> dict[str, np.ndarray]:
    """Return for every fact of a task how right each item (n,) has it: 0 or 1, impacts by F1."""
    records = run.records(task, SPLIT, samples)
    terms = run.suite.terms
    right = {
        f"{output} {fact}": np.array([r.readings[output].facts.get(fact) == r.facts[fact]
                                      for r in records], dtype=float)
        for output in task.outputs
        for fact in terms.told(task)
        if fact in terms.shows[output]
    }  # fmt: skip
    compared = compared_impacts(task, terms, records)
    if compared is not None and terms.match is not None:
        output, first, second = compared
        pairs = zip(first, second, strict=True)
        right[f"{output} impacts"] = np.array([terms.match(a, b)[0] for a, b in pairs])
    return right


def _compared(
    task: Task, right: dict[str, np.ndarray], before: dict[str, np.ndarray] | None
) -> list[Fact]:
    """Return the facts beside those of the reference, which itself has nothing `before` it."""
    if before is None:
        return [Fact(task.name, f, float(now.mean()), 0.0, (0.0, 0.0)) for f, now in right.items()]
    found = []
    for fact, now in right.items():
        change = now - before[fact]
        value, difference = float(now.mean()), float(change.mean())
        found.append(Fact(task.name, fact, value, difference, change_interval(change)))
    return found


def evaluations(pipeline: Pipeline, settings: SamplingSettings, to: Sequence[str]) -> float:
    """Count the evaluations of the networks that one sample of `to` takes.

    The sampler itself is run on nothing, so that what is counted is what it does.
    """
    resolved = pipeline.describe(settings, to)
    schedule = pipeline.model.schedule
    asked: list[int] = []

    def denoise(z: torch.Tensor, t: int) -> torch.Tensor:
        asked.append(t)
        return z

    SAMPLERS[resolved["sampler"]](
        denoise,
        torch.zeros(1, 1),
        schedule.timesteps(resolved["steps"], resolved["spacing"]),
        schedule,
        eta=resolved["eta"],
        noise=lambda _: torch.zeros(1, 1),
    )
    total = 0.0
    for name in to:
        scale = resolved["guidance"][name]
        rule = GuidanceRule(scale, interval=resolved["guidance_interval"])
        deep, outside = DeepFeatures(resolved["reuse"]), 1.0
        if resolved["reuse"] > 1:
            outside = outside_share(pipeline.config, name)
        for t in asked:
            rows = torch.empty(2 if rule.active(t) else 1)
            if deep.take(rows) is None:
                deep.keep(rows)
                total += len(rows)
            else:
                total += len(rows) * outside
    return total


def outside_share(config: ModelConfig, name: str) -> float:
    """Return the share of a diffuser's operations that is computed where its inside is reused."""
    part = config.modality(name).part("diffusers")
    encoder = next(m.encoder for m in config.modalities.values() if m.encoder)
    assert part is not None
    width = config.part("encoders", encoder).context_width
    with torch.device("meta"), torch.no_grad():
        diffuser, deep = config.part("diffusers", part).build(), DeepFeatures(2)
        if not getattr(diffuser, "reuses_inside", False):
            return 1.0
        z = torch.zeros(1, *config.modality(name).latent)
        counted = []
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                diffuser(
                    z, torch.ones(1, dtype=torch.long), torch.zeros(1, 1, width), None, deep=deep
                )
            counted.append(counter.get_total_flops())
    return counted[1] / counted[0]


# --- the report ---


def _write(out: Path, model: str, samples: int, outcomes: Sequence[Outcome]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table = {
        "model": model,
        "samples": samples,
        "tolerance": TOLERANCE,
        "outcomes": [dataclasses.asdict(o) | {"evaluations_sum": o.cost} for o in outcomes],
    }
    atomic_write_text(out / "sampling.json", json.dumps(table, indent=1) + "\n")
    atomic_write_text(out / "sampling.md", markdown(model, samples, outcomes))
    points = [Point(o.name, o.cost, 100.0 * o.mean, str(o.settings["steps"])) for o in outcomes]
    drawn = scatter(points, "evaluations of the networks", "mean over the facts, %")
    atomic_write_text(out / "sampling.svg", drawn)


def markdown(model: str, samples: int, outcomes: Sequence[Outcome]) -> str:
    """Return the table of all settings and what follows from it; the first is the reference."""
    reference = outcomes[0]
    names = list(dict.fromkeys((fact.task, fact.fact) for fact in reference.facts))
    lines = [
        f"# Sampling of model {model}",
        "",
        f"{samples} items a task. A guided step is two evaluations; a step that reuses the inside "
        "of a network counts as its share of operations. Facts in %; in brackets the 95 % interval "
        "of the largest loss against the first row, item by item, in points.",
        "",
        *_too_few(samples),
        "| setting | steps | evaluations | "
        + " | ".join(_named(name, names) for name in names)
        + " | mean | largest loss | within a point |",
        "|---|" + "---:|" * (len(names) + 4) + "---|",
    ]
    for outcome in sorted(outcomes, key=lambda o: (o is not reference, o.name, -o.cost)):
        values = {(fact.task, fact.fact): fact.value for fact in outcome.facts}
        worst = outcome.worst
        low, high = (100.0 * end for end in worst.ci95)
        lines.append(
            f"| {outcome.name} | {outcome.settings['steps']} | {outcome.cost:.1f} | "
            + " | ".join(f"{100.0 * values[name]:.1f}" for name in names)
            + f" | {100.0 * outcome.mean:.1f} | "
            f"{_named((worst.task, worst.fact), names)} {100.0 * worst.difference:+.1f} "
            f"({low:+.1f} to {high:+.1f}) | {_verdict(outcome)} |"
        )
    return "\n".join([*lines, "", *suggestion(outcomes)]) + "\n"


def _named(name: tuple[str, str], names: Sequence[tuple[str, str]]) -> str:
    """Return a fact's name, with its task where two tasks have one of that name."""
    task, fact = name
    return fact if sum(other == fact for _, other in names) == 1 else f"{task} {fact}"


def _too_few(samples: int) -> list[str]:
    if samples >= SURE_FROM:
        return []
    line = f"{samples} items cannot tell a point surely, {SURE_FROM} can: see --samples."
    return [line, ""]


def _verdict(outcome: Outcome) -> str:
    if outcome.surely:
        return "surely"
    return "no, surely" if outcome.fails else "yes" if outcome.keeps else "no"


def suggestion(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the sentences that name the fewest evaluations which keep every fact."""
    lines = []
    for words, holds in (
        ("every fact, as measured, within a point", lambda o: o.keeps),
        ("the 95 % interval of every fact within a point", lambda o: o.surely),
        ("no fact whose 95 % interval lies below a point", lambda o: not o.fails),
    ):
        best = min((o for o in outcomes if holds(o)), key=lambda o: o.cost)
        lines.append(
            f"Fewest evaluations with {words} of the first row: {best.cost:.1f} "
            f"({best.name}, {best.settings['steps']} steps; first row: {outcomes[0].cost:.1f})."
        )
        lines.append("")
    return lines[:-1]
