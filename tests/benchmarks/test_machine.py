"""Clocks and the machine's limits."""

from __future__ import annotations

import time

import pytest
import torch

from codi.benchmarks import machine
from codi.benchmarks.machine import (
    fastest,
    in_turns,
    matrix_peak,
    peak_around,
    ratio,
    reading_speed,
    seconds,
)


def test_speeds_are_measured() -> None:
    assert 1e8 < matrix_peak(size=128, duration_s=0.02) < 1e16
    assert 1e6 < reading_speed(size=2**20, duration_s=0.02) < 1e14
    assert 1e6 < matrix_peak(size=64, duration_s=0.02, dtype=torch.bfloat16) < 1e16


def test_a_call_takes_its_time() -> None:
    assert seconds(lambda: time.sleep(0.01)) >= 0.01
    assert fastest(lambda: time.sleep(0.01), "cpu", duration_s=0.0) >= 0.01


def test_works_are_called_in_turns_after_one_that_does_not_count() -> None:
    called: list[str] = []
    times = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, repeat=2)
    assert called == ["a", "b"] * 3
    assert [len(t) for t in times.values()] == [2, 2]


def test_a_ratio_is_that_of_the_same_turn() -> None:
    slow_spell = {"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 2.0]}
    assert ratio(slow_spell, "b", "a") == 2.0


def test_the_peak_around_a_work_is_the_higher_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter((2.0, 5.0, 4.0, 1.0))
    monkeypatch.setattr(machine, "matrix_peak", lambda *_, **__: next(found))
    assert peak_around(lambda: "done", "cpu", torch.float32) == ("done", 5.0)
    assert peak_around(lambda: "done", "cpu", torch.float32) == ("done", 4.0)
