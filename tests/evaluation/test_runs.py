"""Several trainings of one thing: means, what each has, and intervals of runs and items."""

from __future__ import annotations

import numpy as np
import pytest

from codi.evaluation.cells import Cell, Each
from codi.evaluation.report import table
from codi.evaluation.runs import over_runs
from codi.evaluation.statistics import crossed_interval, mean_interval


def cell(values: list[float] | None, value: float, fact: str = "impacts") -> Cell:
    each = None if values is None else Each(dict(enumerate(values)))
    n = 4 if values is None else len(values)
    return Cell("t", "audio", fact, "arm", value, n, 0.25, (0.0, 1.0), each=each)


def test_one_run_stays_as_it_is() -> None:
    alone = [cell([0.0, 1.0], 0.5)]
    assert [*over_runs([alone])] == alone


def test_several_runs_are_averaged_and_each_is_told() -> None:
    found = [*over_runs([[cell([0.0, 1.0], 0.5)], [cell([1.0, 1.0], 1.0)]])]
    assert (found[0].value, found[0].n, found[0].chance) == (0.75, 4, 0.25)
    assert found[0].runs == (0.5, 1.0)
    assert found[0].ci95 == crossed_interval(np.array([[0.0, 1.0], [1.0, 1.0]]), 0.0, 1.0)
    assert found[0].row()["runs"] == (0.5, 1.0)
    assert table(found, ["arm"])[1][2] == "75.0 % (0–100): 50.0, 100.0"


def test_what_is_no_mean_over_items_has_no_interval() -> None:
    found = [*over_runs([[cell(None, 10.0, "offset_ms")], [cell(None, 14.0, "offset_ms")]])]
    assert (found[0].value, found[0].ci95) == (12.0, None)
    assert table(found, ["arm"])[1][2] == "12 ms: 10, 14"


def test_what_a_run_could_not_measure_is_left_out_of_its_mean() -> None:
    nothing = Cell("t", "audio", "impacts", "arm", None, 0, None, None)
    found = [*over_runs([[nothing], [cell([1.0, 0.0], 0.5)]])]
    assert (found[0].value, found[0].runs, found[0].n) == (0.5, (0.5,), 2)
    assert next(over_runs([[nothing], [nothing]])).value is None


def test_the_interval_of_crossed_values_holds_the_truth_nineteen_times_in_twenty() -> None:
    """Runs and items drawn anew each time, as variable as in ablations: known variances."""
    rng = np.random.default_rng(0)
    of_both, of_items = 0, 0
    for _ in range(400):
        runs, items = rng.normal(0.0, 0.05, (1, 3)), rng.normal(0.0, 0.2, (40, 1))
        values = runs + items + rng.normal(0.0, 0.2, (40, 3))
        low, high = crossed_interval(values) or (1.0, 0.0)
        of_both += low <= 0.0 <= high
        low, high = mean_interval(values.mean(axis=1)) or (1.0, 0.0)
        of_items += low <= 0.0 <= high
    assert of_both / 400 > 0.94
    assert of_items / 400 < 0.9  # what items alone claim


def test_a_crossed_interval_of_equal_runs_is_that_of_the_items() -> None:
    same = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert crossed_interval(same, 0.0, 1.0) == mean_interval([1.0, 0.0, 1.0], 0.0, 1.0)
    assert crossed_interval(np.full((3, 2), np.nan)) is None
    low, high = crossed_interval(np.ones((30, 3)), 0.0, 1.0) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.886, 1.0), abs=1e-3)


def test_an_item_that_a_run_lacks_counts_in_the_others() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.0], [1.0, 1.0]])
    low, high = crossed_interval(values, 0.0, 1.0) or (1.0, 0.0)
    assert low <= 7 / 12 <= high
