"""Curves over powers of two as an SVG file, drawn by hand: panels side by side, each with a share below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_COLOURS = ("#c2571a", "#1f6fb4", "#222222")
_WIDTH, _HEIGHT, _SHARE_HEIGHT = 300.0, 220.0, 60.0
_LEFT, _TOP, _GAP, _BETWEEN = 64.0, 40.0, 22.0, 84.0
_LEGEND = 62.0
_STROKES = (2.0, 2.0, 3.5)

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points with a name."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves on logarithmic axes, the last drawn below the others, and a share between 0 and 1 below them."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    share: tuple[Point, ...]
    share_name: str


def draw(panels: Sequence[Panel], file: Path) -> None:
    """Write `panels`, from the left to the right."""
    step = _LEFT + _WIDTH + _BETWEEN - _LEFT / 2
    height = _TOP + _HEIGHT + _GAP + _SHARE_HEIGHT + 40
    body = "\n".join(
        line for number, panel in enumerate(panels) for line in _panel(panel, _LEFT + number * step)
    )
    width = _LEFT + len(panels) * step
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _panel(panel: Panel, left: float) -> Iterator[str]:
    xs = [x for x, _ in panel.share]
    ys = [y for curve in panel.curves for _, y in curve.points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    across = math.log2(max(xs) / min(xs)) or 1.0
    below = _TOP + _HEIGHT + _GAP

    def place(x: float, y: float) -> tuple[float, float]:
        up = (math.log10(y) - low) / (high - low)
        return left + _WIDTH * math.log2(x / min(xs)) / across, _TOP + _HEIGHT * (1 - up)

    yield _text(panel.title, left, _TOP - 22, weight="bold")
    yield _text(panel.y, left, _TOP - 8)
    for exponent in range(low, high + 1):
        y = place(min(xs), 10.0**exponent)[1]
        yield _line([(left, y), (left + _WIDTH, y)], "#dddddd", 1)
        yield _text(f"{10.0**exponent:,g}", left - 6, y + 4, anchor="end")
    for x, share in panel.share:
        column = place(x, ys[0])[0]
        yield _line([(column, _TOP), (column, below + _SHARE_HEIGHT)], "#eeeeee", 1)
        yield _text(f"{x:g}", column, below + _SHARE_HEIGHT + 14, anchor="middle")
        top = below + _SHARE_HEIGHT * (1 - share)
        yield _line([(column, below + _SHARE_HEIGHT), (column, top)], _COLOURS[1], 9)
    yield _text(panel.x, left + _WIDTH / 2, below + _SHARE_HEIGHT + 28, anchor="middle")
    yield _text(panel.share_name, left, below - 5)
    for number, curve in reversed(list(enumerate(panel.curves))):
        points = [place(*point) for point in curve.points]
        yield _line(points, _COLOURS[number], _STROKES[number])
        end = left + _WIDTH - _LEGEND * (len(panel.curves) - 1 - number)
        yield _text(curve.name, end, _TOP - 22, anchor="end", fill=_COLOURS[number])


def _line(points: Sequence[Point], colour: str, stroke: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{stroke:g}"/>'


def _text(
    text: str,
    x: float,
    y: float,
    *,
    anchor: str = "start",
    weight: str = "normal",
    fill: str = "#222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}">'
        f"{escape(text)}</text>"
    )
