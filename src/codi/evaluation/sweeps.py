"""Sweeps over the weights of conflicting prompts: whom outputs follow in the mean, and its curves.

Single facts are `codi.evaluation.scoring`'s. It knows no fact by name, and no file.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from codi.evaluation.cells import Cell
from codi.evaluation.plot import Point, scatter
from codi.evaluation.records import Record
from codi.evaluation.scoring import measure_obedience, pairs_of
from codi.evaluation.statistics import grouped_interval
from codi.evaluation.suites import Task, Terms

MEAN = "mean of the facts"


def means(task: Task, terms: Terms, split: str, records: Sequence[Record]) -> Iterator[Cell]:
    """Yield the mean over the facts of how often an output follows each of conflicting prompts.

    Every fact counts alike, however many pairs differ in it. Facts of one pair of items are not
    independent, so that intervals resample pairs; `n` counts the outputs of pairs that differ.
    """
    shares: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    chances: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for pair in pairs_of(records):
        told: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for number in measure_obedience(task, terms, pair):
            assert number.source is not None
            assert number.value is not None
            assert number.chance is not None
            of = (number.output, number.source)
            told[of][number.fact] = number.value
            chances[of][number.fact] = number.chance
        for of, found in told.items():
            shares[of].append(found)
    for (output, source), rows in shares.items():
        facts = chances[output, source]
        values = np.array([[row.get(fact, np.nan) for fact in facts] for row in rows])
        fact = f"{MEAN} of {source}"
        yield Cell(
            task=task.name,
            output=output,
            fact=f"{output} {fact}" if len(task.outputs) > 1 else fact,
            split=split,
            value=float(np.nanmean(values, axis=0).mean()),
            n=2 * len(rows),
            chance=float(np.mean([*facts.values()])),
            ci95=grouped_interval(values, 0.0, 1.0),
            source=source,
        )


def curves(cells: Sequence[Cell], tasks: Sequence[Task]) -> str | None:
    """Return an SVG of the means over the facts against the weights of tasks that have any.

    Measurements from before there were `means` are drawn by their facts, without an interval.
    """
    swept = {task.name: task for task in tasks if task.weights}
    several = len({cell.split for cell in cells}) > 1
    drawn: dict[tuple[str, float], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.task in swept and cell.unit == "share" and cell.value is not None:
            task = swept[cell.task]
            series = dataclasses.replace(task, weights=()).name
            series += f": {cell.source}" if cell.source else ""
            series += f", {cell.split}" if several else ""
            drawn[series, task.weights[0]].append(cell)
    points = [_point(series, x, found) for (series, x), found in drawn.items()]
    if not points:
        return None
    titles = ("weight of the first prompt", "mean over the facts, %")
    return scatter(points, *titles, logarithmic=False)


def _point(series: str, x: float, cells: Sequence[Cell]) -> Point:
    """Return the mean that is among some cells of facts, or else theirs."""
    own = [cell for cell in cells if MEAN in cell.fact]
    y = float(np.mean([100.0 * (cell.value or 0.0) for cell in own or cells]))
    ends = own[0].ci95 if len(own) == 1 else None
    return Point(series, x, y, ends=None if ends is None else (100.0 * ends[0], 100.0 * ends[1]))
