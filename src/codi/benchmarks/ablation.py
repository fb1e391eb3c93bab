"""Ablations: one recipe trained several times, each time with one choice made otherwise.

A plan is a TOML file: a question, a recipe, the arms that change it, and what is measured of each.
All arms have the same data, the same seed and the same beginning, and are measured on the same
items and noise, so that each is compared with the first, item by item. Each may be trained with
several seeds, to tell what a choice is worth from what a seed is. This module decides nothing
about machines or progress: whoever calls it says how a recipe is run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codi.build import load_config
from codi.config import ConfigError, build, load_toml, to_toml, unknown
from codi.evaluation import results_page
from codi.evaluation.cells import Cell
from codi.evaluation.changes import CHANGE, changes
from codi.evaluation.fingerprints import WeightDigests
from codi.evaluation.report import SAMPLING, drawn, settings_of, table, write_report
from codi.evaluation.runner import evaluate
from codi.evaluation.runs import over_runs
from codi.folders import PRESETS
from codi.progress import Progress
from codi.training.recipe import Recipe, read_recipe
from codi.weights import find_model

PLANS = PRESETS / "ablations"
"""Folder of the plans that ship."""

_ONE_RUN = (
    "Intervals are of prompts and noise alone: every arm is one training run, and how much runs "
    "differ they do not say."
)

_SEVERAL_RUNS = (
    "Every arm was trained {runs} times, with seeds {first} to {last}, and measured on the same "
    "prompts and noise; numbers are means of these runs, intervals are of runs and prompts "
    "together, behind a colon is what each run has, and n counts all runs."
)

Train = Callable[[Recipe, Path], Path]
"""(recipe, folder of the run) -> folder of the model; goes on where it stopped."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: also its folder's.
        change: "a.b=c" assignments on the recipe, as `codi train --set` takes them.
        note: what it stands for.
    """

    name: str
    change: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """What is measured of every arm: tasks of a suite, as `codi evaluate` measures them."""

    suite: str
    tasks: tuple[str, ...]
    samples: int = 100
    splits: tuple[str, ...] = ("trained",)


@dataclass(frozen=True)
class Ablation:
    """A question, and the trainings that answer it.

    Attributes:
        name: of the report.
        question: in a sentence.
        recipe: the table of a recipe, which may extend a shipped one.
        arm: at least two; the first is the choice that the project made.
        measure: what is asked of each.
        plot: "task fact" of the table's rows that are drawn; all shares when empty.
        runs: trainings of every arm, each with a seed of its own.
    """

    name: str
    question: str
    recipe: dict[str, Any]
    arm: tuple[Arm, ...]
    measure: tuple[Measurement, ...]
    plot: tuple[str, ...] = ()
    runs: int = 1
    file: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        """Check the arms.

        Raises:
            ValueError: fewer than two arms, two of one name, no run, or nothing to measure.
        """
        names = [arm.name for arm in self.arm]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"arms are {', '.join(names) or 'none'}; give two or more, by names")
        if self.runs < 1:
            raise ValueError(f"runs = {self.runs}; give 1 or more")
        if not self.measure:
            raise ValueError("nothing is measured; give [[measure]] with a suite and its tasks")

    def recipe_of(self, arm: Arm, run: int = 0) -> Recipe:
        """Return the recipe of an arm, with the seed of one of its runs.

        Raises:
            ConfigError: a change of something that is not there, or a recipe that cannot be.
        """
        try:
            recipe = read_recipe(self.recipe, self.file, arm.change)
        except ConfigError as error:
            raise ConfigError(f"ablation {self.name}: arm {arm.name!r}: {error}") from error
        name = f"{self.name}-{self.run_name(arm, run)}"
        return dataclasses.replace(recipe, name=name, seed=recipe.seed + run)

    @staticmethod
    def run_name(arm: Arm, run: int) -> str:
        """Return what a run of an arm is called, and its folder."""
        return f"{arm.name}-run-{run + 1}" if run else arm.name


def load_ablation(name_or_file: str | Path) -> Ablation:
    """Read a plan: a TOML file, or the name of one that ships ("freezing").

    Raises:
        ConfigError: no such plan (names the nearest), or a mistake in it or in one of its recipes.
    """
    for candidate in (Path(name_or_file), PLANS / f"{name_or_file}.toml"):
        if candidate.is_file():
            plan = build(Ablation, load_toml(candidate), candidate)
            plan = dataclasses.replace(plan, file=candidate)
            for arm in plan.arm:
                plan.recipe_of(arm)
            return plan
    raise ConfigError(unknown("ablation", str(name_or_file), shipped_ablations()))


def shipped_ablations() -> list[str]:
    """Return the names of the plans that ship."""
    return [path.stem for path in sorted(PLANS.glob("*.toml"))]


def run_ablation(
    plan: Ablation,
    out: Path,
    train: Train,
    *,
    only: Iterable[str] = (),
    samples: int | None = None,
    device: str = "auto",
    data: str | None = None,
    results: Path | None = None,
    progress: Progress,
    say: Callable[[str], None],
) -> list[Cell]:
    """Train and measure the arms; write `<name>.json`, `.md`, `.html` and `.svg` below `out`.

    Args:
        plan: what to do.
        out: folder of the report, and of a folder for each run of an arm; what is there already
            stays.
        train: runs a recipe.
        only: names of arms; all by default.
        samples: of every task; the plan's own numbers by default.
        device: where to measure.
        data: folder of data sets, instead of the variable CODI_DATA.
        results: a Markdown page to bring the table and the plot into; see
            `codi.evaluation.results_page`.
        progress: shows the measuring.
        say: tells what is done now.

    Returns:
        The cells of all arms, means over their runs, and how far each arm is from the plan's
        first, run by run, where that is among them; `Cell.split` is the arm, with the split where
        there are several.

    Raises:
        ConfigError: an unknown arm, or an arm's folder that another plan has trained.
    """
    chosen = _chosen(plan, only)
    block = f"ablate-{plan.name}"  # a suite may have the plan's name
    depends = {f"recipe of arm {arm.name!r}": _digest(plan, arm) for arm in chosen}
    if results is not None:
        results_page.require(results, block, depends)
    cells: list[Cell] = []
    before: dict[tuple[int, Measurement], list[Cell]] = {}
    first = plan.arm[0]
    sampled: list[Mapping[str, Any]] = []
    for arm in chosen:
        runs: list[list[Cell]] = []
        for run in range(plan.runs):
            recipe, folder = plan.recipe_of(arm, run), out / plan.run_name(arm, run)
            say(f"{folder.name}: {arm.note}" if arm.note else folder.name)
            _refuse_another(folder, recipe)
            model = train(recipe, folder)
            runs.append([])
            for measure in plan.measure:
                found = evaluate(
                    model,
                    measure.suite,
                    samples=samples or measure.samples,
                    out=folder / "measured",
                    tasks=measure.tasks,
                    splits=measure.splits,
                    device=device,
                    data=data,
                    progress=progress,
                )
                sampled.append(settings_of(folder / "measured", Path(measure.suite).stem))
                if arm == first:
                    before[run, measure] = [*found]
                else:
                    found += changes(found, before.get((run, measure), ()), first.name)
                runs[-1] += _in_column(found, arm.name, several=len(measure.splits) > 1)
        cells += over_runs(runs)
    cells = results_page.merged((), cells)  # task by task, as pages have them
    columns = list(dict.fromkeys(cell.split for cell in cells))
    note = _said(plan, chosen)
    settings = {**_begun(plan, chosen), **_shared(sampled), "note": note, "samples": samples}
    if first not in chosen:
        settings["left_out"] = {f"{CHANGE}{first.name}": "that arm is not named with --only"}
    write_report(out, plan.name, settings, cells, columns, _drawn(plan, cells))
    if results is not None:
        of_all = {**settings, "note": _said(plan, plan.arm)}
        several = plan.runs if plan.runs > 1 else None
        given = {"--out": "DIR", "--runs": several, "--samples": samples}
        command = " ".join(
            ["codi ablate", plan.name, *(f"{name} {n}" for name, n in given.items() if n)]
        )
        results_page.bring(
            results,
            block,
            command,
            of_all,
            cells,
            depends=depends,
            draw=lambda whole: _drawn(plan, whole),
        )
    return cells


def rows_of(cells: Sequence[Cell]) -> list[list[str]]:
    """Return the table of an ablation: a row for each fact, a column for each arm."""
    return table(cells, list(dict.fromkeys(cell.split for cell in cells)))


def _chosen(plan: Ablation, only: Iterable[str]) -> list[Arm]:
    """Return the arms to do, in the plan's order: the others are compared with the first."""
    arms, asked = {arm.name: arm for arm in plan.arm}, list(only)
    for name in asked:
        if name not in arms:
            raise ConfigError(f"--only: {unknown('arm', name, arms)}")
    return [arms[name] for name in arms if name in asked or not asked]


def _in_column(cells: Iterable[Cell], arm: str, *, several: bool) -> list[Cell]:
    """Return cells of an arm in its column, or in one for each split where there are several."""
    return [
        dataclasses.replace(cell, split=f"{arm}, {cell.split}" if several else arm)
        for cell in cells
    ]


def _refuse_another(folder: Path, recipe: Recipe) -> None:
    kept = folder / "recipe.toml"
    if kept.is_file() and kept.read_text(encoding="utf-8") != to_toml(recipe):
        raise ConfigError(
            f"{folder} holds a run of another recipe ({kept}); take it away, or give another --out"
        )


def _digest(plan: Ablation, arm: Arm) -> str:
    """Return a digest of all that an arm trains."""
    return hashlib.sha256(to_toml(plan.recipe_of(arm)).encode()).hexdigest()[:16]


def _begun(plan: Ablation, arms: Sequence[Arm]) -> dict[str, Any]:
    """Return what all arms begin with: the model, and the digest of its weights."""
    start, *others = dict.fromkeys(plan.recipe_of(arm).starts_from for arm in arms)
    if start is None or others:
        named = (name or "none, trained from nothing" for name in (start, *others))
        return {"model": " or ".join(named)}
    folder = find_model(start)
    return {"model": folder.name, "weights": WeightDigests(folder, load_config(folder)).whole()}


def _shared(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings in which all measurements agree."""
    first = measured[0]
    return {
        name: first[name]
        for name in (*SAMPLING, "dtype", "seed", "media")
        if name in first and all(one.get(name) == first[name] for one in measured)
    }


def _said(plan: Ablation, arms: Sequence[Arm]) -> str:
    told = "; ".join(
        f"{arm.name}: {arm.note or ', '.join(arm.change) or 'as it is'}" for arm in arms
    )
    seed = plan.recipe_of(plan.arm[0]).seed
    counted = _SEVERAL_RUNS.format(runs=plan.runs, first=seed, last=seed + plan.runs - 1)
    return f"{plan.question} {told}. {counted if plan.runs > 1 else _ONE_RUN}"


def _drawn(plan: Ablation, cells: Sequence[Cell]) -> str | None:
    """Return an SVG of shares with their intervals, the arms below each other, or None."""
    shares = [cell for cell in cells if cell.unit == "share" and not cell.fact.endswith("_ms")]
    kept = [cell for cell in cells if _row(cell) in plan.plot] if plan.plot else shares
    rows = [_row(cell) for cell in kept]
    by_row = sorted(kept, key=lambda cell: rows.index(_row(cell)))
    return drawn(by_row, row=_row, series=lambda cell: cell.split)


def _row(cell: Cell) -> str:
    return f"{cell.task} {cell.fact}"
