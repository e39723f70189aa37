"""Curves and points on two axes as SVG files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from layoutsel.core.files import write_text
from layoutsel.report.gantt import numbered_colour, ticks

Point = tuple[float, float]
"""Position on the two axes."""

_LEFT, _TOP, _WIDTH, _HEIGHT, _BOTTOM = 70.0, 44.0, 620.0, 320.0, 44.0
_ROW = 18.0
"""Height of a row of the legend."""
_LEGEND = 230.0
"""Width of the legend."""
_MARGIN = 0.04
"""Share of an axis that stays free at each end."""
_HALO = ' stroke="white" stroke-width="3" paint-order="stroke"'
"""Attributes of text that is readable on lines."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points with a name."""

    name: str
    """Name."""
    points: tuple[Point, ...]
    """Points, in the order in which a line connects them."""
    is_line: bool = True
    """False to draw each point as a dot."""
    labels: tuple[str, ...] = ()
    """Text next to each dot; () for none."""


def write_curves(
    series: Sequence[Series], file: Path, *, title: str, x: str, y: str, log_x: bool = False
) -> None:
    """Draw series on two axes, with a legend.

    Parameters
    ----------
    series
        Series; those without points are left out.
    file
        File to write.
    title
        Title.
    x, y
        Names of the axes.
    log_x
        True for a logarithmic horizontal axis; all points must be above 0 on it.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    shown = [one for one in series if one.points]
    scale = _LOGARITHMIC if log_x else _LINEAR
    write_text(file, "\n".join(_lines(shown, title, x, y, scale)) + "\n")


class _Scale(NamedTuple):
    """Scale of an axis."""

    place: Callable[[float], float]
    """Position of a value."""
    ticks: Callable[[float, float], Iterable[float]]
    """Values to mark between two positions."""


def _steps(first: float, last: float) -> Iterator[float]:
    """Yield 1, 2 and 5 times powers of ten between two logarithms."""
    for power in range(math.floor(first), math.ceil(last) + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if first <= math.log10(value) <= last:
                yield value


_LINEAR = _Scale(float, ticks)
"""Scale on which a value is its own position."""
_LOGARITHMIC = _Scale(math.log10, _steps)
"""Scale on which equal ratios have equal distances."""


def _lines(series: Sequence[Series], title: str, x: str, y: str, scale: _Scale) -> Iterator[str]:
    points = [point for one in series for point in one.points] or [(1.0, 0.0)]
    across = _range([scale.place(point[0]) for point in points])
    up = _range([point[1] for point in points])
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT

    def column(value: float) -> float:
        return _LEFT + _WIDTH * (scale.place(value) - across[0]) / (across[1] - across[0])

    def row(value: float) -> float:
        return bottom - _HEIGHT * (value - up[0]) / (up[1] - up[0])

    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {right + _LEGEND:g} {bottom + _BOTTOM:g}" '
        f'font-family="sans-serif" font-size="11">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield _text(_LEFT, 18, title, weight="bold")
    yield _text(_LEFT, _TOP - 10, y)
    yield _text(right, bottom + 32, x, anchor="end")
    for value in scale.ticks(*across):
        yield _path([(column(value), _TOP), (column(value), bottom)], "#ddd", 1)
        yield _text(column(value), bottom + 15, f"{value:.6g}", anchor="middle")
    for value in ticks(*up):
        yield _path([(_LEFT, row(value)), (right, row(value))], "#ddd", 1)
        yield _text(_LEFT - 6, row(value) + 4, f"{value:.6g}", anchor="end")
    for number, one in enumerate(series):
        colour = numbered_colour(number)
        places = [(column(point[0]), row(point[1])) for point in one.points]
        yield from _marks(places, one, colour)
        for (left, top), text in zip(places, one.labels, strict=False):
            yield _text(left, top - 8, text, anchor="middle", more=_HALO)
        top = _TOP + _ROW * number
        sample = [(right + 14, top + 6), (right + 34, top + 6)]
        yield from _marks(sample if one.is_line else sample[1:], one, colour)
        yield _text(right + 44, top + 10, one.name)
    yield "</svg>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with free margins."""
    low, high = min(values), max(values)
    margin = _MARGIN * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _marks(places: Sequence[Point], one: Series, colour: str) -> Iterator[str]:
    if one.is_line:
        yield _path(places, colour, 2)
        return
    for column, row in places:
        yield (
            f'<circle cx="{column:.1f}" cy="{row:.1f}" r="4.5" fill="{colour}">'
            f"<title>{escape(one.name)}</title></circle>"
        )


def _path(places: Sequence[Point], colour: str, width: float) -> str:
    through = " ".join(f"{column:.1f},{row:.1f}" for column, row in places)
    return f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", more: str = ""
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"{more}>'
        f"{escape(text)}</text>"
    )
