"""`codi bench growth`: what every further modality costs to train, after CoDi's claim of linearity.

CoDi trains n modalities with an alignment to text, a latent diffusion model and a joint stage for
each (section 3: a linear number of objectives); a stage for every pair would be n (n - 1) / 2.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codi.cli.options import Formatter, add_results
from codi.config import ConfigError, unknown

if TYPE_CHECKING:
    from codi.build import ModelConfig
    from codi.training.recipe import Recipe, Stage

_DRAWN = ("stages", "pairs trained", "all pairs")
"""Columns that are drawn."""

_BLOCK = "growth"
"""Of a page of results."""

_DESCRIPTION = """\
Count what each modality adds to the training of the ones before it: stages, pairs that are trained,
parameters and operations. A stage belongs to the newest modality that its largest objective is
about. Several recipes are read as one training, such as a trained model's and that of a further
modality. Nothing is trained.

examples:
  codi bench growth recipe-tiny --order text image audio video
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
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the table as an SVG too")
    add_results(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Growth:
    """What one modality adds.

    Attributes:
        stages: of training; pairs: of modalities that are trained together.
        parameters: of the parts that no earlier modality has.
        flops: operations of its stages.
    """

    modality: str
    stages: int
    pairs: int
    parameters: int
    flops: float


def run(arguments: argparse.Namespace) -> int:
    """Print the table, and draw it where that is asked for."""
    from rich.table import Table

    from codi.cli.progress import print_line, print_table
    from codi.evaluation.results_page import put, require
    from codi.media import atomic_write_text
    from codi.training.recipe import load_recipe

    if arguments.results:
        require(arguments.results, _BLOCK)
    grown = growth([load_recipe(recipe) for recipe in arguments.recipes], arguments.order)
    head, *body = _table(grown)
    table = Table(*head, title="in all, after each modality")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in body:
        table.add_row(*row)
    print_table(table)
    for added in grown:
        print_line(
            f"{added.modality} adds {added.stages} stages, {added.pairs} pairs, "
            f"{added.parameters:,} parameters and {added.flops / 1e15:,.1f} PFLOP"
        )
    plot = _drawn(body)
    if arguments.plot:
        atomic_write_text(arguments.plot, plot)
    if arguments.results:
        words = [*arguments.recipes, *(["--order", *arguments.order] if arguments.order else [])]
        command = f"codi bench growth {' '.join(words)}"
        said = f"`{command}`, counted, not timed: in all, after each modality."
        put(arguments.results, _BLOCK, [said], [head, *body], plot)
    return 0


def _table(grown: Iterable[Growth]) -> list[list[str]]:
    """Return what there is in all after each modality, the names of columns first."""
    rows = [["modalities", "added", *_DRAWN, "parameters", "PFLOP"]]
    stages = pairs = parameters = 0
    flops = 0.0
    for n, added in enumerate(grown, 1):
        stages, pairs = stages + added.stages, pairs + added.pairs
        parameters, flops = parameters + added.parameters, flops + added.flops
        every = n * (n - 1) // 2
        counts = [f"{n}", added.modality, f"{stages}", f"{pairs}", f"{every}"]
        rows.append([*counts, f"{parameters:,}", f"{flops / 1e15:,.1f}"])
    return rows


def growth(recipes: Sequence[Recipe], order: Sequence[str] | None = None) -> list[Growth]:
    """Return what every modality adds, in an order of modalities (that of the last model).

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
    pairs: dict[str, set[frozenset[str]]] = defaultdict(set)
    for recipe in recipes:
        planner = Planner(recipe)
        for stage in recipe.stage:
            about = _about(recipe, stage)
            newest = max(about, key=names.index)
            stages[newest] += 1
            flops[newest] += planner.plan(stage).flops * stage.steps
            met = {frozenset(pair) for pair in itertools.combinations(about, 2)}
            pairs[newest] |= met.difference(*pairs.values())
    parameters = _parameters(recipes[-1].model_config(), names)
    return [Growth(n, stages[n], len(pairs[n]), parameters[n], flops[n]) for n in names]


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
    from codi.cli.plan import streams_of

    index, largest = max(enumerate(stage.objectives), key=lambda pair: pair[1].share)
    config = largest.config(stage.where(recipe.name, index))
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
    from codi.evaluation.plot import Point, scatter

    points = [
        Point(what, int(n), int(number))
        for n, _, *numbers in rows
        for what, number in zip(_DRAWN, numbers, strict=False)
    ]
    return scatter(points, "modalities", "number", logarithmic=False)
