"""Means over the facts of conflicting prompts: of the facts, with intervals of pairs, and drawn."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest

from codi.evaluation.cells import Cell
from codi.evaluation.records import Reading, Record
from codi.evaluation.scoring import score
from codi.evaluation.suites import Input, Task, Terms
from codi.evaluation.sweeps import curves, means

TERMS = Terms(
    {"shape": ("ball", "cube"), "size": ("small", "medium", "large", "huge")},
    dict.fromkeys(("text", "image"), ("shape", "size")),
)
TASK = Task(
    (Input("text"), Input("image", other=True)),
    ("image",),
    measures=("obedience",),
    weights=(0.5, 0.5),
)


def records(pairs: int, heard: float = 1.0, seed: int = 0) -> list[Record]:
    """Return items of which every output follows the sentence as often as `heard` says."""
    rng = np.random.default_rng(seed)
    facts = [
        {name: str(rng.choice(values)) for name, values in TERMS.values.items()}
        for _ in range(2 * pairs)
    ]
    return [
        Record(i, own, None, {"image": Reading(own if rng.random() < heard else facts[i ^ 1])})
        for i, own in enumerate(facts)
    ]


def test_the_mean_counts_every_fact_alike() -> None:
    found = records(40, heard=0.7)
    single = score(TASK, TERMS, "trained", found)
    for cell in means(TASK, TERMS, "trained", found):
        own = [one for one in single if one.source == cell.source]
        assert [one.fact.split()[0] for one in own] == ["shape", "size"]
        assert len({one.n for one in own}) == 2  # more pairs differ in the size
        assert cell.fact == f"mean of the facts of {cell.source}"
        assert cell.value == pytest.approx(np.mean([one.value for one in own]))
        assert cell.chance == pytest.approx((1 / 2 + 1 / 4) / 2)
        assert cell.n >= max(one.n for one in own)
        assert cell.value is not None
        assert cell.ci95 is not None
        assert cell.ci95[0] < cell.value < cell.ci95[1]


def test_its_interval_holds_the_truth() -> None:
    held = []
    for seed in range(200):
        cell = next(iter(means(TASK, TERMS, "trained", records(30, heard=0.7, seed=seed))))
        assert cell.ci95 is not None
        held.append(cell.ci95[0] <= 0.7 <= cell.ci95[1])
    assert 0.9 <= np.mean(held) <= 0.99


def test_always_and_never_are_not_certain() -> None:
    always, never = means(TASK, TERMS, "trained", records(20))
    assert (always.value, never.value) == (1.0, 0.0)
    assert always.ci95 is not None
    assert never.ci95 is not None
    assert 0.6 < always.ci95[0] < 0.95
    assert never.ci95 == pytest.approx((1.0 - always.ci95[1], 1.0 - always.ci95[0]))
    assert list(means(TASK, TERMS, "trained", records(1)[:1])) == []  # a partner is missing


def _places(picture: str) -> tuple[list[float], list[tuple[float, float]]]:
    svg = "{http://www.w3.org/2000/svg}"
    drawn = ElementTree.fromstring(picture)
    points = [c.attrib for c in drawn.findall(f"{svg}circle") if c.attrib["r"] == "3.5"]
    bars = [
        line.attrib for line in drawn.findall(f"{svg}line") if line.attrib["stroke"] != "#dddddd"
    ]
    return [float(p["cy"]) for p in points], [(float(b["y1"]), float(b["y2"])) for b in bars]


def test_means_are_drawn_with_their_intervals() -> None:
    found = records(40, heard=0.7)
    mean = next(iter(means(TASK, TERMS, "trained", found)))
    facts = [c for c in score(TASK, TERMS, "trained", found) if c.source == "text"]
    (height,), ((low, high),) = _places(curves([*facts, mean], [TASK]) or "")
    assert high < height < low  # upwards
    assert _places(curves([mean], [TASK]) or "") == ([height], [(low, high)])
    (_,), bars = _places(curves(facts, [TASK]) or "")  # as an earlier version measured
    assert bars == []


def test_only_weights_are_drawn() -> None:
    plain = dataclasses.replace(TASK, weights=())
    cell = Cell(plain.name, "image", "shape of text", "trained", 0.5, 9, 0.5, None, source="text")
    assert curves([cell], [plain, TASK]) is None
