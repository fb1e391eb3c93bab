"""Differences are of the same items, and as sure as these say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from codi.evaluation.cells import Cell, Each
from codi.evaluation.changes import changes, with_changes
from codi.evaluation.statistics import change_interval, paired_interval
from codi.evaluation.suites import Input, Task


def cell(values: Sequence[float], fact: str = "shape", task: str = "one", first: int = 0) -> Cell:
    """Return a cell of shares of the items from a number on."""
    each = Each(dict(enumerate(values, first)))
    return Cell(task, "image", fact, "trained", 0.5, len(values), 0.2, (0.0, 1.0), each=each)


def test_a_change_is_of_the_same_items_in_points() -> None:
    now, before = cell([1, 0, 0, 1, 0]), cell([1, 1, 1, 0, 0])
    (found,) = changes([now], [before], "default")
    assert (found.fact, found.unit, found.n, found.chance) == (
        "shape change from default",
        "points",
        5,
        None,
    )
    assert found.value == pytest.approx(-0.2)  # one gained, two lost
    assert found.ci95 == paired_interval(1, 2, 5)
    assert found.each == Each({0: 0, 1: -1, 2: -1, 3: 1, 4: 0}, -1.0, 1.0, change=True)
    assert not [*changes([found], [found], "other")]  # nobody's question


def test_only_items_that_both_have_count() -> None:
    (found,) = changes([cell([1, 0, 1])], [cell([1, 1, 0], first=1)], "other")
    assert (found.n, found.value, found.ci95) == (2, -0.5, paired_interval(0, 1, 2))
    assert not [*changes([cell([1.0])], [cell([1.0], first=9)], "other")]


def test_shares_of_an_item_change_too() -> None:
    (found,) = changes([cell([1.0, 0.5, 0.25])], [cell([0.5, 0.5, 0.5])], "other")
    assert found.value == pytest.approx(0.25 / 3)
    assert found.ci95 == change_interval([0.5, 0.0, -0.25])


def test_other_facts_and_what_is_no_mean_over_items_are_not_compared() -> None:
    median = Cell("one", "audio", "offset_ms", "trained", 31.0, 9, 60.0, (20.0, 40.0))
    found = changes([cell([1], "size"), median], [cell([1], "shape"), median], "other")
    assert not [*found]


def test_numbers_that_all_stay_have_no_interval() -> None:
    cosines = Each({0: 0.2, 1: 0.3}, -1.0, 1.0)
    sim = Cell("one", "image", "sim", "trained", 0.25, 2, None, None, "number", each=cosines)
    (found,) = changes([sim], [sim], "other")
    assert (found.value, found.ci95, found.unit) == (0.0, None, "number")


def test_files_have_cells_without_their_items() -> None:
    row = cell([1, 0]).row()
    assert "each" not in row
    assert Cell(**{**row, "ci95": (0.0, 1.0)}) == cell([1, 0])


ONE = Task((Input("text"),), ("image",))
TWO = Task((Input("text"), Input("audio")), ("image",), against=(ONE.name, "audio-to-image"))


def test_a_task_is_held_against_those_that_it_names() -> None:
    measured = {
        ONE.name: [cell([1, 1], task=ONE.name)],
        TWO.name: [cell([1, 0], task=TWO.name)],
    }
    found, left_out = with_changes([ONE, TWO], measured)
    assert found[ONE.name] == measured[ONE.name]
    own, change = found[TWO.name]
    assert own == measured[TWO.name][0]
    assert (change.task, change.fact) == (TWO.name, "shape change from text-to-image")
    assert (change.value, change.ci95) == (-0.5, paired_interval(0, 1, 2))
    ((row, why),) = left_out.items()
    assert row == "text+audio-to-image change from audio-to-image"
    assert why.startswith("audio-to-image is not measured here on the same items (trained); add it")
    assert with_changes([ONE, TWO], {ONE.name: [], TWO.name: []})[1] == {}  # nothing to hold


def test_what_tasks_are_held_against_is_no_matter_of_their_samples() -> None:
    assert "against" not in TWO.key
    assert Task(TWO.inputs, TWO.outputs) == TWO
