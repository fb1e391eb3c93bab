"""Several trainings of one thing: means, what each has, and intervals of runs and items."""

from __future__ import annotations

import numpy as np
import pytest

from codi.evaluation.cells import Cell, Each
from codi.evaluation.changes import changes
from codi.evaluation.report import table
from codi.evaluation.runs import over_runs
from codi.evaluation.statistics import crossed_interval, mean_interval, paired_interval


def cell(values: list[float] | None, value: float, fact: str = "impacts") -> Cell:
    each = None if values is None else Each(dict(enumerate(values)))
    n = 4 if values is None else len(values)
    return Cell("t", "audio", fact, "arm", value, n, 0.25, (0.0, 1.0), each=each)


def test_one_run_stays_as_it_is() -> None:
    alone = [cell([0.0, 1.0], 0.5)]
    assert [*over_runs([alone])] == alone


def test_several_runs_are_averaged_and_each_is_told() -> None:
    (found,) = over_runs([[cell([0.0, 1.0], 0.5)], [cell([1.0, 1.0], 1.0)]])
    assert (found.value, found.n, found.chance) == (0.75, 4, 0.25)
    assert found.runs == (0.5, 1.0)
    of_items = mean_interval([0.5, 1.0], 0.0, 1.0)
    values = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert found.ci95 == crossed_interval(values, of_items, 0.0, 1.0)
    assert found.row()["runs"] == (0.5, 1.0)
    assert table([found], ["arm"])[1][2] == "75.0 % (0–100): 50.0, 100.0"


def test_what_is_no_mean_over_items_has_no_interval() -> None:
    (found,) = over_runs([[cell(None, 10.0, "offset_ms")], [cell(None, 14.0, "offset_ms")]])
    assert (found.value, found.ci95) == (12.0, None)
    assert table([found], ["arm"])[1][2] == "12 ms: 10, 14"


def test_what_a_run_could_not_measure_is_left_out_of_its_mean() -> None:
    nothing = Cell("t", "audio", "impacts", "arm", None, 0, None, None)
    (found,) = over_runs([[nothing], [cell([1.0, 0.0], 0.5)]])
    assert (found.value, found.runs, found.n, found.ci95) == (0.5, (0.5,), 2, None)
    assert next(over_runs([[nothing], [nothing]])).value is None
    (found,) = over_runs([[], [cell([1.0, 0.0], 0.5)]])  # which the first has not at all
    assert found.runs == (0.5,)


def test_a_change_of_several_runs_is_as_sure_as_that_of_one_where_runs_agree() -> None:
    same = [cell([1.0, 0.0] * 30, 0.5)]
    change = [*changes(same, same, "first")]
    (found,) = over_runs([change] * 3)
    assert (found.value, found.ci95) == (0.0, change[0].ci95) == (0.0, paired_interval(0, 0, 60))
    cosines = Each({0: 0.2, 1: 0.3}, -1.0, 1.0)
    sim = Cell("t", "image", "sim", "arm", 0.25, 2, None, None, "number", each=cosines)
    (found,) = over_runs([[*changes([sim], [sim], "first")]] * 2)
    assert (found.value, found.ci95) == (0.0, None)  # no range of theirs says how sure that is


@pytest.mark.parametrize(("runs", "spread"), [(2, 0.05), (2, 0.2), (3, 0.0), (3, 0.05), (3, 0.2)])
def test_the_interval_of_crossed_values_holds_the_truth_nineteen_times_in_twenty(
    runs: int, spread: float
) -> None:
    """Runs and items drawn anew each time, as variable as in ablations and more."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        values = rng.normal(0.0, spread, (1, runs)) + rng.normal(0.0, 0.2, (40, 1))
        values = values + rng.normal(0.0, 0.2, (40, runs))
        low, high = crossed_interval(values, None) or (1.0, 0.0)
        held += low <= 0.0 <= high
    assert held / 1000 > 0.94


def test_a_crossed_interval_is_never_narrower_than_that_of_the_items() -> None:
    same = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert crossed_interval(same, (0.2, 0.9), 0.0, 1.0) == (0.2, 0.9)
    assert crossed_interval(same[:, :1], (0.2, 0.9)) == (0.2, 0.9)
    assert crossed_interval(np.full((3, 2), np.nan), None) is None
    low, high = crossed_interval(np.array([[0.4, 0.6]]), None, 0.0, 1.0) or (1.0, 0.0)
    assert (low, high) == (0.0, 1.0)  # one item, and two runs that differ by a fifth


def test_an_item_that_a_run_lacks_counts_in_the_others() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.0], [1.0, 1.0]])
    low, high = crossed_interval(values, None, 0.0, 1.0) or (1.0, 0.0)
    assert low <= 7 / 12 <= high
