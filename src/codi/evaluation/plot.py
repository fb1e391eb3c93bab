"""Plots as SVG: points of several series against an axis, or estimates with their intervals.

It knows no measurement.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 210, 20, 50
_LETTER = 6.5
"""Width of a letter, nearly."""
_ROWS = 340
"""Width of the axis of a picture of rows, whose names take what they need."""
_APART, _ROWS_APART = 9, 9
_MOST_TICKS = 6
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"),
)
"""Okabe and Ito's, which the colour-blind can tell apart."""


@dataclass(frozen=True)
class Point:
    """One point: its series, its place, a word beside it, and the ends of its interval, if any."""

    series: str
    x: float
    y: float
    label: str = ""
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Estimate:
    """One number with its interval.

    Attributes:
        row: what it is about; numbers of one row stand together.
        series: which of the row's numbers it is.
        value, low, high: the number, and the ends of its interval.
        chance: what guessing gives; None where that has no meaning.
    """

    row: str
    series: str
    value: float
    low: float
    high: float
    chance: float | None = None


def scatter(points: Sequence[Point], x_title: str, y_title: str, logarithmic: bool = True) -> str:
    """Return an SVG of points, joined within each series in the order of x; bars are intervals.

    Args:
        points: with x above 0 where the axis is logarithmic.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        logarithmic: whether equal ratios of x are equally far apart, rather than differences.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("no points to draw; give at least one")
    along: Callable[[float], float] = math.log if logarithmic else float
    low, high = _span([along(p.x) for p in points])
    bottom, top = _span([y for p in points for y in (p.y, *(p.ends or ()))])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (along(x) - low) / (high - low)
        up = (y - bottom) / (top - bottom)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    drawn = _head(_HEIGHT)
    for x in _ticks(math.exp(low), math.exp(high)) if logarithmic else _even_ticks(low, high):
        across, _ = at(x, bottom)
        drawn.append(_line(across, _TOP, across, _HEIGHT - _BOTTOM))
        drawn.append(_text(across, _HEIGHT - _BOTTOM + 16, f"{x:g}", "middle"))
    for y in _even_ticks(bottom, top):
        _, up = at(points[0].x, y)
        drawn.append(_line(_LEFT, up, _WIDTH - _RIGHT, up))
        drawn.append(_text(_LEFT - 6, up + 4, f"{y:g}", "end"))
    drawn.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, x_title, "middle"))
    drawn.append(
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    colours = _coloured(p.series for p in points)
    for series, colour in colours.items():
        own = sorted((p for p in points if p.series == series), key=lambda p: p.x)
        places = [at(p.x, p.y) for p in own]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for point, (x, y) in zip(own, places, strict=True):
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            drawn.append(_text(x, y - 7, point.label, "middle"))
            if point.ends is not None:
                (_, low_y), (_, high_y) = (at(point.x, end) for end in point.ends)
                drawn.append(_line(x, low_y, x, high_y, colour))
    return "\n".join([*drawn, *_legend(colours, _WIDTH - _RIGHT), "</svg>"]) + "\n"


def intervals(estimates: Sequence[Estimate], title: str) -> str:
    """Return an SVG of numbers with their intervals, row below row; a bar marks chance.

    Args:
        estimates: in the order of the picture, those of one row next to each other.
        title: of the horizontal axis.

    Raises:
        ValueError: no estimates.
    """
    if not estimates:
        raise ValueError("no estimates to draw; give at least one")
    chances = [e.chance for e in estimates if e.chance is not None]
    ends = [end for e in estimates for end in (e.low, e.value, e.high)]
    low, high = _span([*ends, *chances])
    tops, bottom = _tops(estimates)
    height = max(bottom + _BOTTOM, _TOP + 18 * (1 + len({e.series for e in estimates})))

    colours = _coloured(e.series for e in estimates)
    left = 16 + _LETTER * max(len(e.row) for e in estimates)
    right = left + _ROWS

    def at(x: float) -> float:
        return left + (x - low) / (high - low) * _ROWS

    drawn = _head(height, right + 30 + _LETTER * max(map(len, colours)))
    for x in _even_ticks(low, high):
        drawn.append(_line(at(x), _TOP, at(x), bottom))
        drawn.append(_text(at(x), bottom + 16, f"{x:g}", "middle"))
    drawn.append(_text((at(low) + at(high)) / 2, height - 12, title, "middle"))
    shown = ""
    for estimate, y in zip(estimates, tops, strict=True):
        if estimate.row != shown:
            drawn.append(_text(left - 8, y + 4, estimate.row, "end"))
            shown = estimate.row
        colour = colours[estimate.series]
        if estimate.chance is not None:
            x = at(estimate.chance)
            drawn.append(_line(x, y - _APART / 2, x, y + _APART / 2, "#888888"))
        drawn.append(_line(at(estimate.low), y, at(estimate.high), y, colour))
        drawn.append(
            f'<circle cx="{at(estimate.value):.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
        )
    return "\n".join([*drawn, *_legend(colours, right), "</svg>"]) + "\n"


def _tops(estimates: Sequence[Estimate]) -> tuple[list[float], float]:
    """Return the height of every estimate, and of the end of the rows."""
    heights, y, shown = [], float(_TOP), None
    for estimate in estimates:
        y += _APART if estimate.row == shown else _APART + _ROWS_APART
        heights.append(y)
        shown = estimate.row
    return heights, y + _APART + _ROWS_APART


def _head(height: float, width: float = _WIDTH) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
    ]


def _coloured(series: Iterable[str]) -> dict[str, str]:
    """Return a colour for each series."""
    return dict(zip(dict.fromkeys(series), itertools.cycle(_COLOURS), strict=False))


def _legend(colours: Mapping[str, str], left: float) -> list[str]:
    """Return the names of the series with their colours, one below the other."""
    drawn = []
    for index, (series, colour) in enumerate(colours.items()):
        y = _TOP + 14 + 18 * index
        drawn.append(f'<circle cx="{left + 14}" cy="{y - 4}" r="4" fill="{colour}"/>')
        drawn.append(_text(left + 24, y, series, "start"))
    return drawn


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that holds all values, with a margin."""
    margin = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers 1, 2, 5, 10 ... within the ends of a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _even_ticks(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5, or of their tenths or tenfolds, within the ends of an axis.

    >>> _even_ticks(-0.06, 1.06)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> _even_ticks(71.3, 98.9)
    [75.0, 80.0, 85.0, 90.0, 95.0]
    """
    power = math.floor(math.log10(high - low))
    steps = [m * 10.0**p for p in (power - 1, power) for m in (1, 2, 5)]
    step = next(step for step in steps if (high - low) / step <= _MOST_TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
