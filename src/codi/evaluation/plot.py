"""Plots as SVG: points of several series against an axis. It knows no measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 210, 20, 50
_MOST_TICKS = 6
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"),
)
"""Okabe and Ito's, which the colour-blind can tell apart."""


@dataclass(frozen=True)
class Point:
    """One point: its series, its place, and a word beside it."""

    series: str
    x: float
    y: float
    label: str = ""


def scatter(points: Sequence[Point], x_title: str, y_title: str, logarithmic: bool = True) -> str:
    """Return an SVG of points, joined within each series in the order of x.

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
    bottom, top = _span([p.y for p in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (along(x) - low) / (high - low)
        up = (y - bottom) / (top - bottom)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
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
    for index, series in enumerate(dict.fromkeys(p.series for p in points)):
        colour = _COLOURS[index % len(_COLOURS)]
        own = sorted((p for p in points if p.series == series), key=lambda p: p.x)
        places = [at(p.x, p.y) for p in own]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for point, (x, y) in zip(own, places, strict=True):
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            drawn.append(_text(x, y - 7, point.label, "middle"))
        beside = _TOP + 14 + 18 * index
        drawn.append(
            f'<circle cx="{_WIDTH - _RIGHT + 14}" cy="{beside - 4}" r="4" fill="{colour}"/>'
        )
        drawn.append(_text(_WIDTH - _RIGHT + 24, beside, series, "start"))
    return "\n".join([*drawn, "</svg>"]) + "\n"


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


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
