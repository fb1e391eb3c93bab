"""`codi bench train`: seconds and operations of a step of every stage of a recipe."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from codi.cli.bench_report import (
    SPEED_COLUMNS,
    add_json,
    machine,
    peak_line,
    print_json,
    speed_cells,
    speed_numbers,
)
from codi.cli.options import Formatter, add_device, resolve_device

if TYPE_CHECKING:
    from codi.cli.progress import Display
    from codi.training.loop import RunSettings
    from codi.training.recipe import Recipe, Stage

_DESCRIPTION = """\
Take a few steps of every stage of a recipe, on few data, and then the same steps once more to count
their operations: forwards, backwards and the update. A stage with several objectives is measured
on those that its steps draw. The speed of matrix products is measured in the same run, before and
after. There is no peer: no other library trains this model. `codi bench unet --against diffusers`
compares the network that they have in common.

examples:
  codi bench train recipe-tiny-cpu
  codi bench train recipe-tiny-cpu --bf16 --json
"""


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement and its options."""
    parser = kinds.add_parser(
        "train",
        formatter_class=Formatter,
        help="seconds and operations of training steps",
        description=_DESCRIPTION,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, or a TOML file")
    parser.add_argument("--data", metavar="DIR", help="folder of data sets")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Time and count training steps; print a table, or numbers."""
    import torch

    from codi.benchmarks.machine import peak_around
    from codi.cli.plan import measured
    from codi.cli.progress import Display
    from codi.training.loop import RunSettings
    from codi.training.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    device = resolve_device(arguments.device)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    with Display() as display, tempfile.TemporaryDirectory(prefix="codi-") as folder:
        times, peak = peak_around(
            lambda: measured(recipe, arguments.data, device, arguments.bf16, display), device, dtype
        )
        settings = RunSettings(
            Path(folder), data=arguments.data, device=device, bfloat16=arguments.bf16
        )
        flops = _counted(recipe, list(times), settings, display)
    on = machine(dtype, device)
    stages = [stage for stage in recipe.stage if stage.name in times]
    if arguments.json:
        rows = [
            {
                "name": stage.name,
                "seconds": times[stage.name],
                "samples_per_s": _samples(stage) / times[stage.name],
                **speed_numbers(flops[stage.name], times[stage.name], peak),
            }
            for stage in stages
        ]
        print_json({"recipe": recipe.name, "machine": on, "peak": peak, "stages": rows})
    else:
        _print(recipe.name, stages, times, flops, peak, on)
    return 0


def _print(
    title: str,
    stages: Iterable[Stage],
    times: dict[str, float],
    flops: dict[str, float],
    peak: float,
    on: str,
) -> None:
    from rich.table import Table

    from codi.cli.progress import print_line, print_table

    table = Table("stage", "ms a step", "samples a second", *SPEED_COLUMNS, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in stages:
        taken_s = times[stage.name]
        table.add_row(
            stage.name,
            f"{taken_s * 1e3:.0f}",
            f"{_samples(stage) / taken_s:.1f}",
            *speed_cells(flops[stage.name], taken_s, peak),
        )
    print_table(table)
    print_line(peak_line(peak, on))


def _counted(
    recipe: Recipe, stages: list[str], settings: RunSettings, display: Display
) -> dict[str, float]:
    """Return the operations of a step of the stages that were measured, of the very same steps.

    What a step does is known by its seed, stage and number; a counter would slow a clock down.
    """
    from codi.benchmarks.counting import StepCounter
    from codi.cli.plan import shortened
    from codi.training.loop import Run

    counts = StepCounter()
    run = Run(shortened(recipe), settings, progress=display.count, steps=counts.steps)
    for index in display.count("counting stages", len(stages)):
        run.run([stages[index]])
    return counts.flops


def _samples(stage: Stage) -> float:
    """Return how many samples a step of a stage has in the mean over its objectives."""
    shares = sum(objective.share for objective in stage.objectives)
    drawn = sum(objective.share * stage.size(objective) for objective in stage.objectives)
    return drawn / shares * stage.accumulate
