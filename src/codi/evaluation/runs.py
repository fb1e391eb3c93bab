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
from codi.evaluation.changes import interval_of_change
from codi.evaluation.statistics import Interval, crossed_interval, mean_interval


def over_runs(runs: Sequence[Sequence[Cell]]) -> Iterator[Cell]:
    """Yield a cell for each fact: the mean over the runs that measured it.

    Where a number is a mean over items, and all runs have it, its interval is of runs and items
    together (`crossed_interval`); of other numbers there is none. `n` counts what all runs
    measured, and `Cell.runs` has the value of each.

    Args:
        runs: cells of each, of the same tasks and items; those of one run come out as they are.
    """
    if len(runs) == 1:
        yield from runs[0]
        return
    by_fact: dict[tuple[str | None, ...], list[Cell]] = {}
    for cells in runs:
        for cell in cells:
            by_fact.setdefault(_fact(cell), []).append(cell)
    for found in by_fact.values():
        measured = [(cell.value, cell.each) for cell in found if cell.value is not None]
        chances = [cell.chance for cell in found if cell.chance is not None]
        each = [of_items for _, of_items in measured if of_items is not None]
        values = tuple(value for value, _ in measured)
        yield replace(
            found[0],
            value=fmean(values) if values else None,
            n=sum(cell.n for cell in found),
            chance=fmean(chances) if chances else None,
            ci95=_interval(each) if len(each) == len(runs) else None,
            runs=values,
            each=None,
        )


def _interval(runs: Sequence[Each]) -> Interval | None:
    """Return the interval of the mean over runs, each of which is a mean over items."""
    items = sorted({index for each in runs for index in each.values})
    values = np.array(
        [[each.values.get(index, np.nan) for each in runs] for index in items], dtype=float
    )
    means, least, most = np.nanmean(values, axis=1), runs[0].least, runs[0].most
    if runs[0].change:
        of_items = interval_of_change(means, runs[0])
    else:
        of_items = mean_interval(means, least, most)
    return crossed_interval(values, of_items, least, most)


def _fact(cell: Cell) -> tuple[str | None, ...]:
    return cell.task, cell.split, cell.fact, cell.output, cell.extractor, cell.source
