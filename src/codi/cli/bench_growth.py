"""`codi bench growth`: what every further modality costs to train, after CoDi's claim of linearity.

CoDi trains n modalities with an alignment to text, a latent diffusion model and a joint stage for
each (section 3: a linear number of objectives); a stage for every pair would be n (n - 1) / 2.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codi.cli.options import Formatter, add_device, add_results, named_path, resolve_device
from codi.cli.plugins import OPTION
from codi.config import ConfigError, unknown

if TYPE_CHECKING:
    from codi.build import ModelConfig
    from codi.training.recipe import Recipe, Stage

_DRAWN = ("stages", "objectives", "pairs trained", "all pairs")
"""Columns that are drawn."""

_BLOCK = "growth"
"""Of a page of results."""

_DESCRIPTION = """\
Count what each modality adds to the training of the ones before it: stages, objectives, pairs that
are trained, parameters and operations. A stage belongs to the newest modality that its largest
objective is about; a task of the same modalities is one objective, however many stages replay it.
Several recipes are read as one training, such as a trained model's and that of a further modality.
Nothing is trained; with --estimate a few steps of every stage are taken, to say how many hours all
of them take on this machine.

examples:
  codi bench growth recipe-tiny --order text image audio video
  codi bench growth recipe-tiny-cpu --estimate --results docs/results.md
  codi bench growth recipe-tiny examples/depth.toml --plugin examples/depth.py --plot growth.svg
"""


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the options of `codi bench growth`."""
    parser = kinds.add_parser(
        "growth",
        formatter_class=Formatter,
        help="what every further modality costs to train",
        description=_DESCRIPTION,
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="shipped recipes or files")
    parser.add_argument(
        "--order", nargs="+", metavar="M", help="of the modalities (default: that of the model)"
    )
    parser.add_argument(
        "--plot", type=named_path, metavar="FILE", help="write the table as an SVG too"
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="take a few steps of every stage, and add the hours of all of them",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of data sets (default: the variable CODI_DATA)"
    )
    parser.add_argument("--bf16", action="store_true", help="take them in bfloat16")
    add_device(parser)
    add_results(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Growth:
    """What one modality adds.

    Attributes:
        stages: of training; objectives: tasks of some modalities, each counted once.
        pairs: of modalities that are trained together.
        parameters: of the parts that no earlier modality has.
        flops: operations of its stages.
        seconds: that its stages take, where a step of each was measured.
    """

    modality: str
    stages: int
    objectives: int
    pairs: int
    parameters: int
    flops: float
    seconds: float | None = None


def run(arguments: argparse.Namespace) -> int:
    """Print the table, and draw it where that is asked for."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table
    from codi.evaluation.results_page import put, require
    from codi.media import atomic_write_text
    from codi.training.recipe import load_recipe

    if arguments.results:
        require(arguments.results, _BLOCK)
    if arguments.bf16 and not arguments.estimate:
        raise ConfigError("--bf16 belongs to --estimate; give both or neither")
    recipes = [load_recipe(recipe) for recipe in arguments.recipes]
    grown = growth(recipes, arguments.order)  # refuses before anything is timed
    on = ""
    if arguments.estimate:
        times, on = _measured(recipes, arguments)
        grown = growth(recipes, arguments.order, times)
    head, *body = _table(grown)
    table = Table(*head, title="in all, after each modality")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in body:
        table.add_row(*row)
    print_table(table)
    for added in grown:
        print_line(
            f"{added.modality} adds {added.stages} stages, {added.objectives} objectives, "
            f"{added.pairs} pairs, {added.parameters:,} parameters, {added.flops / 1e15:,.1f} PFLOP"
            + ("" if added.seconds is None else f" and {added.seconds / 3600:.2f} h")
        )
    if on:
        print_line(f"hours: {on}")
    plot = _drawn(body)
    if arguments.plot:
        atomic_write_text(arguments.plot, plot)
    if arguments.results:
        said = f"`{_command(arguments)}`: in all, after each modality; "
        said += (
            f"hours measured on few steps of every stage, {on}." if on else "counted, not timed."
        )
        put(arguments.results, _BLOCK, [said], [head, *body], plot)
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """Return the words that make this table again."""
    words = [*arguments.recipes]
    words += [word for plugin in arguments.plugins for word in (OPTION, plugin)]
    words += ["--order", *arguments.order] if arguments.order else []
    words += ["--estimate"] if arguments.estimate else []
    words += ["--bf16"] if arguments.bf16 else []
    return f"codi bench growth {' '.join(words)}"


def _measured(
    recipes: Iterable[Recipe], arguments: argparse.Namespace
) -> tuple[list[dict[str, float]], str]:
    """Return the seconds of a step of every stage of the recipes, and what they were taken on.

    Raises:
        ConfigError: a stage that cannot be measured here: without it hours would not be comparable.
    """
    import torch

    from codi.cli.bench_report import machine
    from codi.cli.plan import measured
    from codi.cli.progress import Display

    device = resolve_device(arguments.device)
    with Display() as display:
        times = [
            measured(recipe, arguments.data, device, arguments.bf16, display) for recipe in recipes
        ]
    for recipe, found in zip(recipes, times, strict=True):
        for stage in recipe.stage:
            if stage.name not in found:
                raise ConfigError(
                    f"--estimate: {recipe.name}, stage {stage.name} cannot be measured (see above);"
                    " give its data with --data, or leave --estimate out"
                )
    return times, machine(torch.bfloat16 if arguments.bf16 else torch.float32, device)


def _table(grown: Iterable[Growth]) -> list[list[str]]:
    """Return what there is in all after each modality, the names of columns first."""
    grown = list(grown)
    timed = all(added.seconds is not None for added in grown)
    rows = [["modalities", "added", *_DRAWN, "parameters", "PFLOP", *(["hours"] if timed else [])]]
    stages = objectives = pairs = parameters = 0
    flops = seconds = 0.0
    for n, added in enumerate(grown, 1):
        stages, objectives = stages + added.stages, objectives + added.objectives
        pairs += added.pairs
        parameters, flops = parameters + added.parameters, flops + added.flops
        every = n * (n - 1) // 2
        counts = [f"{n}", added.modality, *map(str, (stages, objectives, pairs, every))]
        seconds += added.seconds or 0.0
        hours = [f"{seconds / 3600:.2f}"] if timed else []
        rows.append([*counts, f"{parameters:,}", f"{flops / 1e15:,.1f}", *hours])
    return rows


def growth(
    recipes: Sequence[Recipe],
    order: Sequence[str] | None = None,
    seconds_a_step: Sequence[Mapping[str, float]] | None = None,
) -> list[Growth]:
    """Return what every modality adds.

    Args:
        recipes: read as one training, that of the largest model last.
        order: of the modalities; that of the last model by default.
        seconds_a_step: of each recipe, how long a step of each of its stages takes.

    Raises:
        ConfigError: an order that leaves out a modality, repeats one or names an unknown one.
    """
    from codi.cli.plan import Planner

    names = _ordered(recipes[-1].model_config(), order)
    for recipe in recipes[:-1]:
        for name in recipe.model_config().modalities:
            if name not in names:
                raise ConfigError(
                    f"{name} of recipe {recipe.name} is none of the last recipe's modalities; "
                    "name the recipe of the largest model last"
                )
    stages: dict[str, int] = defaultdict(int)
    flops: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    pairs: dict[str, set[frozenset[str]]] = defaultdict(set)
    objectives: dict[str, set[tuple[str, frozenset[str]]]] = defaultdict(set)
    for recipe, times in zip(recipes, seconds_a_step or [{}] * len(recipes), strict=True):
        planner = Planner(recipe)
        for stage in recipe.stage:
            for index, objective in enumerate(stage.objectives):
                named = frozenset(_named(recipe, stage, index))
                objectives[max(named, key=names.index)].add((objective.task, named))
            about = _about(recipe, stage)
            newest = max(about, key=names.index)
            stages[newest] += 1
            flops[newest] += planner.plan(stage).flops * stage.steps
            seconds[newest] += times.get(stage.name, 0.0) * stage.steps
            met = {frozenset(pair) for pair in itertools.combinations(about, 2)}
            pairs[newest] |= met.difference(*pairs.values())
    parameters = _parameters(recipes[-1].model_config(), names)
    return [
        Growth(
            n, stages[n], len(objectives[n]), len(pairs[n]), parameters[n], flops[n],
            None if seconds_a_step is None else seconds[n],
        )
        for n in names
    ]  # fmt: skip


def _ordered(config: ModelConfig, order: Sequence[str] | None) -> list[str]:
    names = list(config.modalities)
    for name in order or ():
        if name not in names:
            raise ConfigError("--order: " + unknown("modality", name, names))
    if order and sorted(order) != sorted(names):
        raise ConfigError(f"--order {' '.join(order)}: name each of {', '.join(names)} once")
    return list(order or names)


def _about(recipe: Recipe, stage: Stage) -> list[str]:
    """Return the modalities of a stage's largest objective; the others replay earlier stages."""
    shares = [objective.share for objective in stage.objectives]
    return _named(recipe, stage, shares.index(max(shares)))


def _named(recipe: Recipe, stage: Stage, index: int) -> list[str]:
    """Return the modalities of an objective."""
    from codi.cli.plan import streams_of

    config = stage.objectives[index].config(stage.where(recipe.name, index))
    bridge = getattr(config, "bridge", None)
    return list(dict.fromkeys([*streams_of(config), *([bridge] if bridge else [])]))


def _parameters(config: ModelConfig, names: Iterable[str]) -> dict[str, int]:
    """Return the size of the parts that each modality is the first to use."""
    from codi.benchmarks.networks import model_of_shapes
    from codi.build import ROLES

    model, seen, found = model_of_shapes(config), set[str](), {}
    for name in names:
        new = [part.split(".", 1) for part in config.parts(ROLES, [name]) if part not in seen]
        seen |= {".".join(part) for part in new}
        parameters = [p for role, own in new for p in model.role(role)[own].parameters()]
        found[name] = sum(p.numel() for p in parameters)
    return found


def _drawn(rows: Iterable[Sequence[str]]) -> str:
    """Draw the rows of the table over the number of modalities."""
    from codi.evaluation.plot import Point, scatter

    points = []
    for n, _, *numbers in rows:
        counts, (parameters, _flops, *hours) = numbers[: len(_DRAWN)], numbers[len(_DRAWN) :]
        points += [
            Point(what, int(n), int(number)) for what, number in zip(_DRAWN, counts, strict=True)
        ]
        points.append(Point("million parameters", int(n), int(parameters.replace(",", "")) / 1e6))
        points += [Point("hours", int(n), float(number)) for number in hours]
    return scatter(points, "modalities", "number", logarithmic=False)
