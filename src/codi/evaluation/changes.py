"""From cells to how far they are from others of the same items and noise, item by item.

What makes one item harder than another is the same on both sides, so that such a difference is
surer than two intervals beside each other say. It knows no task's meaning, no model and no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from codi.evaluation.cells import Cell, Each
from codi.evaluation.statistics import Interval, change_interval, mean_interval
from codi.evaluation.suites import Task

CHANGE = "change from "
"""What the fact of a change says before the name of what it is a change from."""


def changes(cells: Iterable[Cell], before: Iterable[Cell], name: str) -> Iterator[Cell]:
    """Yield how far cells are from those `before` of the same task, split and fact.

    Only what is a mean over items is compared, over the items that both have, which `n` counts, and
    no change is compared with another: a change of a change is nobody's question.

    Args:
        cells: of one task or more.
        before: what they are compared with.
        name: what that is called.
    """
    known = {_key(cell): cell.each for cell in before}
    for cell in cells:
        own, other = cell.each, known.get(_key(cell))
        if own is None or other is None or own.change:
            continue
        shared = sorted(own.values.keys() & other.values.keys())
        if not shared:
            continue
        change = np.array([own.values[index] - other.values[index] for index in shared])
        width = own.most - own.least
        of_items = Each(dict(zip(shared, change.tolist(), strict=True)), -width, width, change=True)
        yield replace(
            cell,
            fact=f"{cell.fact} {CHANGE}{name}",
            value=float(change.mean()),
            n=len(shared),
            chance=None,
            ci95=interval_of_change(change, of_items),
            unit="points" if cell.unit == "share" else cell.unit,
            paper=None,
            each=of_items,
        )


def _key(cell: Cell) -> tuple[str | None, ...]:
    return cell.task, cell.split, cell.fact, cell.output, cell.extractor


def interval_of_change(change: np.ndarray, each: Each) -> Interval | None:
    """Return the interval of the mean of changes (n,), which lie where `each` says.

    Of cosines and the like that all stay there is none: of their range no change ever is as wide.
    """
    if (each.least, each.most) == (-1.0, 1.0):
        return change_interval(change)
    return mean_interval(change, each.least, each.most) if change.any() else None


def with_changes(
    tasks: Sequence[Task], cells: Mapping[str, Sequence[Cell]]
) -> tuple[dict[str, list[Cell]], dict[str, str]]:
    """Return the cells of tasks, with how far each is from those that it is to be held against.

    What is said of one of several prompts is not compared: another task's prompt tells other facts.

    Args:
        tasks: all of a suite.
        cells: of each, by its name; none of those that are not measured.

    Returns:
        The cells by the names of tasks, and by the names of rows why they are left out.
    """
    found, left_out = {}, {}
    for task in tasks:
        own = cells[task.name]
        found[task.name] = [*own]
        for name in task.against:
            before = [replace(cell, task=task.name) for cell in cells.get(name, ())]
            whole = [cell for cell in own if cell.source is None]
            found[task.name] += changes(whole, before, name)
            lacking = dict.fromkeys(c.split for c in own)
            for split in {c.split for c in before}:
                lacking.pop(split, None)
            if lacking:
                left_out[f"{task.name} {CHANGE}{name}"] = (
                    f"{name} is not measured here on the same items ({', '.join(lacking)}); add it "
                    "to --tasks, or leave --tasks out"
                )
    return found, left_out
