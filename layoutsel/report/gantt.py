"""Gantt charts as SVG files: a row for each resource, a bar for each time it was occupied."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from layoutsel.core.files import write_text

_LEFT, _TOP, _ROW, _WIDTH, _BOTTOM = 150.0, 34.0, 20.0, 900.0, 34.0
_CHARACTER = 6.5
"""Width of a character, for labels that fit into their bars."""
_TICKS = 8
"""Greatest number of intervals on the axis of time."""
_GOLDEN = 0.618034
"""Step of the hue from one number to the next: near numbers differ clearly."""


@dataclass(frozen=True, kw_only=True)
class GanttBar:
    """A bar of a chart."""

    row: str
    """Name of its row."""
    start_us: float
    """Start, microseconds."""
    end_us: float
    """End, microseconds."""
    colour: str
    """Colour, such as ``#d0a0a0``."""
    text: str
    """Text that appears under the pointer."""
    label: str = ""
    """Text inside the bar, if it fits."""


@dataclass(frozen=True, kw_only=True)
class GanttMark:
    """A time that is marked by a vertical line."""

    at_us: float
    """Time, microseconds."""
    text: str
    """Text next to the line."""
    rows: tuple[str, ...] = ()
    """Neighbouring rows that the line crosses, with the text in the first; () for all."""


def write_chart(
    bars: Sequence[GanttBar],
    rows: Sequence[str],
    file: Path,
    *,
    title: str,
    marks: Sequence[GanttMark] = (),
) -> None:
    """Draw a chart.

    Parameters
    ----------
    bars
        Bars.
    rows
        Names of the rows, from the top to the bottom.
    file
        File to write.
    title
        Title.
    marks
        Marked times; those outside the bars' time are left out.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    write_text(file, "\n".join(_lines(bars, rows, title, marks)) + "\n")


def numbered_colour(number: int) -> str:
    """Colour for a number; those of near numbers differ clearly."""
    red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN % 1.0, 0.62, 0.55)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _lines(
    bars: Sequence[GanttBar], rows: Sequence[str], title: str, marks: Sequence[GanttMark]
) -> Iterator[str]:
    tops = {name: _TOP + _ROW * number for number, name in enumerate(rows)}
    first_us = min((bar.start_us for bar in bars), default=0.0)
    last_us = max((bar.end_us for bar in bars), default=1.0)
    scale = _WIDTH / ((last_us - first_us) or 1.0)
    bottom = _TOP + _ROW * len(rows)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {_LEFT + _WIDTH + 30:g} {bottom + _BOTTOM:g}" '
        f'font-family="sans-serif" font-size="11">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield f'<text x="{_LEFT:g}" y="18" font-weight="bold">{escape(title)}</text>'
    for us in ticks(first_us, last_us):
        x = _LEFT + (us - first_us) * scale
        yield _line(x, _TOP, bottom, "#ddd")
        yield f'<text x="{x:.1f}" y="{bottom + 14:g}" text-anchor="middle">{us / 1e3:,g}</text>'
    yield f'<text x="{_LEFT + _WIDTH:g}" y="{bottom + 28:g}" text-anchor="end">milliseconds</text>'
    for name, top in tops.items():
        yield f'<text x="{_LEFT - 6:g}" y="{top + 14:g}" text-anchor="end">{escape(name)}</text>'
    for bar in bars:
        yield from _bar(bar, _LEFT + (bar.start_us - first_us) * scale, tops[bar.row], scale)
    for mark in marks:
        if first_us <= mark.at_us <= last_us:
            yield from _mark(mark, _LEFT + (mark.at_us - first_us) * scale, tops, bottom)
    yield "</svg>"


def _bar(bar: GanttBar, x: float, top: float, scale: float) -> Iterator[str]:
    width = (bar.end_us - bar.start_us) * scale
    yield (
        f'<rect x="{x:.2f}" y="{top + 2:g}" width="{max(width, 0.3):.2f}" '
        f'height="{_ROW - 4:g}" fill="{bar.colour}"><title>{escape(bar.text)}</title></rect>'
    )
    if bar.label and width > _CHARACTER * len(bar.label):
        yield (
            f'<text x="{x + width / 2:.1f}" y="{top + 14:g}" text-anchor="middle" '
            f'pointer-events="none">{escape(bar.label)}</text>'
        )


def _mark(mark: GanttMark, x: float, tops: Mapping[str, float], bottom: float) -> Iterator[str]:
    top, text_y = _TOP - 8, _TOP - 2
    if mark.rows:
        top = tops[mark.rows[0]] + 2
        bottom, text_y = tops[mark.rows[-1]] + _ROW, top + 12
    is_right = x > _LEFT + _WIDTH / 2
    yield _line(x, top, bottom, "#c00")
    yield (
        f'<text x="{x - 3 if is_right else x + 3:.1f}" y="{text_y:g}" fill="#c00" '
        f'text-anchor="{"end" if is_right else "start"}">{escape(mark.text)}</text>'
    )


def ticks(first: float, last: float, most: int = _TICKS) -> Iterator[float]:
    """Yield round numbers between two numbers, with about `most` intervals at most."""
    rough = (last - first) / most or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    for number in range(math.ceil(first / step), math.floor(last / step) + 1):
        yield number * step


def _line(x: float, top: float, bottom: float, colour: str) -> str:
    return f'<path d="M{x:.1f} {top:g}V{bottom:g}" stroke="{colour}"/>'
