"""`codi ablate`: train a recipe with and without a choice, and measure what the choice is worth."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from codi.cli.options import add_results, named_path, whole_number
from codi.cli.train import add_running, train

SUMMARY = "train and measure with and without a choice"

_DESCRIPTION = """\
Run the arms of a plan: the same recipe from the same beginning, each time with one choice made
otherwise. Every arm is measured by the same tasks, and the report has a column for each. What is
finished stays finished: after Ctrl-C the same command goes on where it stopped.

examples:
  codi ablate listening --out runs/listening
  codi ablate freezing --out runs/freezing --bf16 --threads 1
  codi ablate bridging --out runs/bridging --runs 3
  codi ablate mine.toml --out runs/mine --only with without --samples 20
"""
_EPILOG = """\
Shipped plans: agreeing, bridging, freezing, listening, pair, telling, temporal.
A plan is a TOML file: question, [recipe] (as of codi train, with extends, starts_from and fresh),
[[arm]] with a name and change = ["a.b=c"], and [[measure]] with suite, tasks, samples and splits.
Its arms may be trained more than once (runs). DIR gets the report and a folder for each run
of an arm, with its model/ in it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `codi ablate`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.set_defaults(run=run)
    parser.add_argument("plan", metavar="PLAN", help="a shipped plan, or a TOML file")
    parser.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="DIR",
        help="folder of the report and the runs",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="ARM", help="train and measure these arms only"
    )
    parser.add_argument(
        "--samples",
        type=whole_number(1),
        metavar="N",
        help="a task (default: the plan's own numbers)",
    )
    parser.add_argument(
        "--runs",
        type=whole_number(1),
        metavar="N",
        help="trainings of every arm, each with a seed of its own, so that a choice is not taken "
        "for what a seed did (default: the plan's own number)",
    )
    add_results(parser)
    add_running(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Do `codi ablate`."""
    from rich.table import Table

    from codi.benchmarks.ablation import load_ablation, rows_of, run_ablation
    from codi.cli.progress import Display, print_table
    from codi.training.recipe import Recipe

    plan = load_ablation(arguments.plan)
    if arguments.runs is not None:
        plan = replace(plan, runs=arguments.runs)
    arguments.cache = arguments.cache or arguments.out / "cache"  # the arms share their data
    with Display(arguments.quiet) as display:

        def trained(recipe: Recipe, folder: Path) -> Path:
            return train(recipe, arguments, folder, display)

        cells = run_ablation(
            plan,
            arguments.out,
            trained,
            only=arguments.only or (),
            samples=arguments.samples,
            device=arguments.device,
            data=arguments.data,
            results=arguments.results,
            progress=display.count,
            say=display.say,
        )
    head, *rows = rows_of(cells)
    table = Table(*head, title=plan.question)
    for row in rows:
        table.add_row(*row)
    print_table(table)
    return 0
