"""From the cells of several trainings of one thing to cells of what such a training gives.

How much one training differs from the next with another seed is a part of every such number's
uncertainty, which items alone do not show. It knows no task's meaning, no model and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from codi.evaluation.cells import Cell, Each
from codi.evaluation.statistics import crossed_interval


def over_runs(runs: Sequence[Sequence[Cell]]) -> Iterator[Cell]:
    """Yield a cell for each fact of the first run: the mean over the runs that measured it.

    Where a number is a mean over items its interval is of runs and items together
    (`crossed_interval`); of other numbers it has none. `n` counts what all runs measured, and
    `Cell.runs` has the value of each.

    Args:
        runs: cells of each, of the same tasks and items; those of one run come out as they are.
    """
    first, *others = runs
    if not others:
        yield from first
        return
    found = [{_key(cell): cell for cell in run} for run in runs]
    for cell in first:
        alike = [run[_key(cell)] for run in found if _key(cell) in run]
        known = [(own, own.value) for own in alike if own.value is not None]
        chances = [own.chance for own in alike if own.chance is not None]
        each = [own.each for own, _ in known if own.each is not None]
        values = tuple(value for _, value in known)
        yield replace(
            cell,
            value=fmean(values) if values else None,
            n=sum(own.n for own in alike),
            chance=fmean(chances) if chances else None,
            ci95=_interval(each) if each and len(each) == len(known) else None,
            runs=values,
            each=None,
        )


def _interval(runs: Sequence[Each]) -> tuple[float, float] | None:
    items = sorted({index for each in runs for index in each.values})
    values = [[each.values.get(index, np.nan) for each in runs] for index in items]
    return crossed_interval(np.array(values, dtype=float), runs[0].least, runs[0].most)


def _key(cell: Cell) -> tuple[str | None, ...]:
    return cell.task, cell.split, cell.fact, cell.output, cell.extractor, cell.source
