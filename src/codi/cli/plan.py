"""The plan of a recipe as a table: what each stage trains, on what, and how long that takes."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from codi.benchmarks.machine import matrix_peak
from codi.build import ModelConfig
from codi.cli.cost import Costs
from codi.cli.progress import Display, duration, print_line, print_table
from codi.config import ConfigError, unknown
from codi.data.source import data_root
from codi.training.loop import Run, RunSettings
from codi.training.parameters import parts_of, tasks_of, trained_by
from codi.training.recipe import Objective, Recipe, Stage

MEASURED_STEPS = 4
"""Steps of a stage that `measured` takes; the first one is not counted."""
_MEASURED_CLIPS = 64
_SHARE_OF_PEAK = 0.6
"""What a training step reaches of the speed of matrix multiplication: 0.3 to 1.2 was measured."""


def show_plan(
    recipe: Recipe,
    data: str | None,
    seconds_a_step: Mapping[str, float] | None = None,
    only: Iterable[str] | None = None,
    device: str = "cpu",
    bfloat16: bool = False,
) -> None:
    """Print a recipe's stages without training: no data are read and no weights are made.

    Args:
        recipe: what to show.
        data: folder of the data sets, to say which of them are there.
        seconds_a_step: measured times by stage; all others are estimated from operation counts.
        only: names of the stages to show.
        device: where it would be trained; its speed is measured.
        bfloat16: whether it would be trained in bfloat16.

    Raises:
        ConfigError: an unknown stage, or a mistake in the recipe.
    """
    names = [stage.name for stage in recipe.stage]
    for name in only or ():
        if name not in names:
            raise ConfigError(unknown("stage", name, names))
    config = recipe.model_config()
    planner = Planner(recipe)
    measured_s = dict(seconds_a_step or {})
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    speed = _SHARE_OF_PEAK * matrix_peak(device, dtype=dtype)
    table = Table(
        "stage", "objectives", "data", "trained parts", "parameters", "steps", "batch", "time",
        title=f"recipe {recipe.name}: model {config.name}",
    )  # fmt: skip
    for column in table.columns[4:]:
        column.justify = "right"
    total_s = 0.0
    for stage in recipe.stage:
        if stage.name in (only or names):
            plan = planner.plan(stage)
            own_s = measured_s.get(stage.name, plan.flops / speed)
            total_s += own_s * stage.steps
            mark = "" if stage.name in measured_s else "~"
            table.add_row(*plan.row(), f"{mark}{duration(own_s * stage.steps)}")
    print_table(table)
    for line in source_lines(recipe, config, data, only or names):
        print_line(line)
    how = "~: counted in operations, for this machine; --estimate measures"
    print_line(f"all stages: about {duration(total_s)} ({how})")


class Planner:
    """The plans of a recipe's stages, with the parts of its model counted once for all stages."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._costs: dict[tuple[str, ...], Costs] = {}

    def plan(self, stage: Stage) -> StagePlan:
        """Return what a stage would do, on the sizes and rates that the stage trains with."""
        if stage.overrides not in self._costs:
            self._costs[stage.overrides] = Costs(self.recipe.model_config(stage))
        return StagePlan.of(self.recipe, stage, self._costs[stage.overrides])


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What a stage would do.

    Attributes:
        trained: parts that are trained; parameters: how many numbers that is.
        flops: operations of one step.
    """

    stage: Stage
    objectives: tuple[str, ...]
    data: tuple[str, ...]
    trained: tuple[str, ...]
    parameters: int
    flops: float

    @classmethod
    def of(cls, recipe: Recipe, stage: Stage, costs: Costs) -> StagePlan:
        """Return the plan of a stage, found on shapes alone."""
        model = costs.with_parts(parts_of(stage, costs.model.config, recipe.name))
        tasks = tasks_of(stage, model, recipe.name)
        _, chosen = trained_by(stage, model, tasks)
        trained = dict.fromkeys(".".join(name.split(".")[:2]) for name in chosen)
        total = sum(objective.share for objective in stage.objectives)
        flops = sum(
            costs.training_flops(task, trained)
            * stage.size(objective)
            * stage.accumulate
            * objective.share
            / total
            for objective, task in zip(stage.objectives, tasks, strict=True)
        )
        return cls(
            stage,
            tuple(
                _objective(o, stage.where(recipe.name, i)) for i, o in enumerate(stage.objectives)
            ),
            tuple(dict.fromkeys(name for o in stage.objectives for name in o.data)),
            tuple(trained),
            sum(parameter.numel() for parameter in chosen.values()),
            flops,
        )

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table, without the time."""
        times = f" x {self.stage.accumulate}" if self.stage.accumulate > 1 else ""
        batch = "\n".join(f"{self.stage.size(o)}{times}" for o in self.stage.objectives)
        return (
            self.stage.name,
            "\n".join(self.objectives),
            ", ".join(self.data),
            "\n".join(self.trained),
            f"{self.parameters:,}",
            f"{self.stage.steps:,}",
            batch,
        )


def _objective(objective: Objective, where: str) -> str:
    share = f" ({objective.share:g})" if objective.share != 1 else ""
    return f"{objective.task} {' + '.join(streams_of(objective.config(where)))}{share}"


def streams_of(config: Any) -> tuple[str, ...]:
    """Return the modalities that a task's settings are about."""
    return getattr(config, "streams", None) or (config.modality,)


def source_lines(
    recipe: Recipe, config: ModelConfig, data: str | None, stages: Iterable[str]
) -> list[str]:
    """Say of every data source whether it is there, and which of the stages cannot run."""
    lines, there, root = [], set(), data_root(data)
    for name, source in recipe.sources().items():
        try:
            if source.build(config, root) is not None:
                there.add(name)
            state = "there" if name in there else "not there; optional, left out"
        except ConfigError as error:
            state = f"missing: {error}"
        lines.append(f"data {name}: {state}")
    lacking = [
        stage.name
        for stage in recipe.stage
        if stage.name in set(stages) and not all(there & set(o.data) for o in stage.objectives)
    ]
    if lacking:
        lines.append(f"without any of their data, these cannot run: {', '.join(lacking)}")
    return lines


# Measuring ----------------------------------------------------------------------------------------


def measured(
    recipe: Recipe,
    data: str | None,
    device: str,
    bfloat16: bool,
    display: Display,
    *,
    workers: int = 0,
    graphs: bool = False,
) -> dict[str, float]:
    """Return the seconds that a step of each stage takes, by taking a few of every stage in turn.

    Optional data sources are left out and worlds are made small; a stage whose data or whose
    starting points are missing is left out. `workers` and `graphs` as in `RunSettings`.
    """
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="codi-") as folder:
        settings = RunSettings(
            Path(folder),
            data=data,
            device=device,
            bfloat16=bfloat16,
            workers=workers,
            graphs=graphs,
        )
        clock = _Clock(times)
        short = Run(shortened(recipe), settings, progress=display.count, steps=clock.steps)
        for index in display.count("measuring stages", len(recipe.stage)):
            name = recipe.stage[index].name
            try:
                short.run([name])
            except ConfigError as error:
                times.pop(name, None)
                display.say(f"note: {name} cannot be measured: {error}")
    return times


class _Clock:
    """Times the steps of stages."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times

    def steps(self, stage: Stage, steps: Iterable[int]) -> Iterator[int]:
        """Yield the steps; the time of all but the first is kept."""
        began_s: list[float] = []
        for step in steps:
            began_s.append(time.perf_counter())
            yield step
        taken_s = time.perf_counter() - began_s[1]
        self.times[stage.name] = taken_s / (len(began_s) - 1)


def shortened(recipe: Recipe) -> Recipe:
    """Return the recipe with few steps, small worlds, and no optional sources."""
    data = {
        name: table | ({"clips": _MEASURED_CLIPS} if "clips" in table else {})
        for name, table in recipe.data.items()
        if not table.get("optional")
    }
    stages = tuple(
        dataclasses.replace(
            stage,
            steps=MEASURED_STEPS,
            objectives=tuple(
                dataclasses.replace(o, data={n: s for n, s in o.data.items() if n in data})
                for o in stage.objectives
            ),
        )
        for stage in recipe.stage
    )
    return dataclasses.replace(recipe, data=data, stage=stages)
