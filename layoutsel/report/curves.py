"""Curves and points on two axes as SVG files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points with a name."""

    name: str
    """Name."""
    points: tuple[Point, ...]
    """Points, in the order in which a line connects them."""
    is_line: bool = True
    """False to draw each point as a dot."""


def write_curves(series: Sequence[Series], file: Path, *, title: str, x: str, y: str) -> None:
    """Draw series on linear axes, with a legend.

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

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    shown = [one for one in series if one.points]
    write_text(file, "\n".join(_lines(shown, title, x, y)) + "\n")


def _lines(series: Sequence[Series], title: str, x: str, y: str) -> Iterator[str]:
    points = [point for one in series for point in one.points] or [(0.0, 0.0)]
    across, up = (_range([point[axis] for point in points]) for axis in (0, 1))
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT

    def place(point: Point) -> Point:
        return (
            _LEFT + _WIDTH * (point[0] - across[0]) / (across[1] - across[0]),
            bottom - _HEIGHT * (point[1] - up[0]) / (up[1] - up[0]),
        )

    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {right + _LEGEND:g} {bottom + _BOTTOM:g}" '
        f'font-family="sans-serif" font-size="11">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield _text(_LEFT, 18, title, weight="bold")
    yield _text(_LEFT, _TOP - 10, y)
    yield _text(right, bottom + 32, x, anchor="end")
    for value in ticks(*across):
        column, _ = place((value, up[0]))
        yield _path([(column, _TOP), (column, bottom)], "#ddd", 1)
        yield _text(column, bottom + 15, f"{value:.6g}", anchor="middle")
    for value in ticks(*up):
        _, row = place((across[0], value))
        yield _path([(_LEFT, row), (right, row)], "#ddd", 1)
        yield _text(_LEFT - 6, row + 4, f"{value:.6g}", anchor="end")
    for number, one in enumerate(series):
        colour = numbered_colour(number)
        row = _TOP + _ROW * number
        yield from _marks([place(point) for point in one.points], one, colour)
        sample = [(right + 14, row + 6), (right + 34, row + 6)]
        yield from _marks(sample if one.is_line else sample[1:], one, colour)
        yield _text(right + 44, row + 10, one.name)
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


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
