"""Plots: well-formed, with every point inside."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from codi.evaluation.plot import Estimate, Point, _ticks, intervals, scatter

_SVG = "{http://www.w3.org/2000/svg}"


def test_every_point_is_drawn_inside_and_joined_by_series() -> None:
    points = [Point("a & b", x, y, "n") for x, y in ((10.0, 1.0), (100.0, 3.0), (40.0, 2.0))]
    drawn = ElementTree.fromstring(scatter([*points, Point("c", 20.0, 2.5)], "x", "y"))
    lines = drawn.findall(f"{_SVG}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 1]
    across = [float(place.split(",")[0]) for place in lines[0].attrib["points"].split()]
    assert across == sorted(across)
    places = [tuple(map(float, p.split(","))) for w in lines for p in w.attrib["points"].split()]
    assert all(60 <= x <= 550 and 20 <= y <= 370 for x, y in places)
    assert "a & b" in [text.text for text in drawn.findall(f"{_SVG}text")]


def test_bars_are_intervals_and_inside() -> None:
    points = [Point("a", 1.0, 50.0, ends=(10.0, 95.0)), Point("a", 2.0, 60.0)]
    drawn = ElementTree.fromstring(scatter(points, "x", "y", logarithmic=False))
    circle = next(c.attrib for c in drawn.findall(f"{_SVG}circle") if c.attrib["r"] == "3.5")
    lines = [line.attrib for line in drawn.findall(f"{_SVG}line")]
    (bar,) = [line for line in lines if line["stroke"] != "#dddddd"]
    assert bar["x1"] == bar["x2"] == circle["cx"]
    assert 20 <= float(bar["y2"]) < float(circle["cy"]) < float(bar["y1"]) <= 370


def test_one_point_is_enough_and_none_is_too_few() -> None:
    ElementTree.fromstring(scatter([Point("a", 5.0, 5.0)], "x", "y"))
    with pytest.raises(ValueError, match="at least one"):
        scatter([], "x", "y")


def test_ticks_are_round() -> None:
    assert _ticks(9.0, 120.0) == [10.0, 20.0, 50.0, 100.0]


def test_the_vertical_axis_is_round_too() -> None:
    drawn = ElementTree.fromstring(scatter([Point("a", 1, 71.3), Point("a", 9, 98.9)], "", ""))
    ends = [t.text for t in drawn.findall(f"{_SVG}text") if t.attrib["text-anchor"] == "end"]
    assert ends == ["70", "80", "90", "100"]


def test_an_even_axis_may_begin_at_nothing() -> None:
    points = [Point("a", x, x) for x in (0.0, 0.25, 1.0)]
    drawn = ElementTree.fromstring(scatter(points, "x", "y", logarithmic=False))
    (line,) = drawn.findall(f"{_SVG}polyline")
    first, second, last = (float(p.split(",")[0]) for p in line.attrib["points"].split())
    assert second - first == pytest.approx(0.25 * (last - first), abs=0.1)
    assert {"0", "0.2", "1"} <= {text.text for text in drawn.findall(f"{_SVG}text")}


def test_estimates_stand_in_rows_with_their_intervals_and_chance() -> None:
    found = [
        Estimate("text-to-image", "shape", 97.0, 94.0, 99.0, chance=20.0),
        Estimate("text-to-image", "size", 50.0, 40.0, 60.0),
        Estimate("audio-to-image", "size", 90.0, 80.0, 95.0, chance=33.3),
    ]
    drawn = ElementTree.fromstring(intervals(found, "per cent"))
    words = [text.text for text in drawn.findall(f"{_SVG}text")]
    assert [words.count(w) for w in ("text-to-image", "audio-to-image", "shape", "size")] == [1] * 4
    lines = [line.attrib for line in drawn.findall(f"{_SVG}line")]
    flat = [line for line in lines if line["y1"] == line["y2"]]
    assert len(flat) == len(found)
    assert len({line["stroke"] for line in flat}) == 2  # a colour for each series
    circles = [c.attrib for c in drawn.findall(f"{_SVG}circle") if c.attrib["r"] == "3.5"]
    for circle, line in zip(circles, flat, strict=True):
        assert float(line["x1"]) < float(circle["cx"]) < float(line["x2"])
        assert circle["cy"] == line["y1"]
    assert len([line for line in lines if line["stroke"] == "#888888"]) == 2
    heights = [float(line["y1"]) for line in flat]
    assert heights[1] - heights[0] < heights[2] - heights[1]  # rows stand apart


def test_no_estimates_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        intervals([], "x")
