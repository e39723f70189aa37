"""Maps of decisions as SVG files: a grid of cells, coloured by what is chosen in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from layoutsel.core.files import write_text
from layoutsel.report.gantt import numbered_colour

_LEFT, _TOP, _CELL_WIDTH, _CELL_HEIGHT = 130.0, 44.0, 130.0, 44.0
_LINE = 15.0
"""Height of a line of text."""
_KEY = 20.0
"""Height of a row of the legend."""
_CHARACTER = 6.5
"""Width of a character, so that titles and legends are within the picture."""


@dataclass(frozen=True, kw_only=True)
class MapCell:
    """A cell of a map."""

    choice: int
    """Number of what is chosen, of those in the legend."""
    lines: tuple[str, ...]
    """Lines of text inside, three at most."""


def write_colour_map(
    cells: Sequence[Sequence[MapCell]],
    file: Path,
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    choices: Sequence[str],
    title: str,
    x: str,
) -> None:
    """Draw a map with a legend below it.

    Parameters
    ----------
    cells
        Cells by row and column, the upper row first.
    file
        File to write.
    columns, rows
        Names of columns and rows.
    choices
        Names of what is chosen; those that no cell has are left out.
    title
        Title.
    x
        Name of the axis of columns.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    lines = _lines(cells, columns, rows, choices, title, x)
    write_text(file, "\n".join(lines) + "\n")


def _lines(
    cells: Sequence[Sequence[MapCell]],
    columns: Sequence[str],
    rows: Sequence[str],
    choices: Sequence[str],
    title: str,
    x: str,
) -> Iterator[str]:
    used = sorted({cell.choice for row in cells for cell in row})
    longest = max(len(text) for text in (title, *choices))
    right = max(_LEFT + _CELL_WIDTH * len(columns), _LEFT + _CHARACTER * longest) + 20
    bottom = _TOP + _CELL_HEIGHT * len(rows)
    height = bottom + 2 * _LINE + _KEY * (len(used) + 1)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:g} {height:g}" '
        f'width="{right:g}" height="{height:g}" font-family="sans-serif" font-size="11">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield _text(_LEFT, 18, title, weight="bold")
    for number, (name, row) in enumerate(zip(rows, cells, strict=True)):
        top = _TOP + _CELL_HEIGHT * number
        yield _text(_LEFT - 8, top + _CELL_HEIGHT / 2 + 4, name, anchor="end")
        for column, cell in enumerate(row):
            yield from _cell(cell, _LEFT + _CELL_WIDTH * column, top)
    for column, name in enumerate(columns):
        yield _text(_LEFT + _CELL_WIDTH * (column + 0.5), bottom + _LINE, name, anchor="middle")
    yield _text(_LEFT + _CELL_WIDTH * len(columns), bottom + 2 * _LINE, x, anchor="end")
    for number, choice in enumerate(used):
        top = bottom + 2 * _LINE + 12 + _KEY * number
        yield _box(_LEFT, top, 14, 14, numbered_colour(choice))
        yield _text(_LEFT + 22, top + 11, choices[choice])
    yield "</svg>"


def _cell(cell: MapCell, left: float, top: float) -> Iterator[str]:
    yield _box(left, top, _CELL_WIDTH, _CELL_HEIGHT, numbered_colour(cell.choice))
    first = top + _CELL_HEIGHT / 2 + 4 - _LINE * (len(cell.lines) - 1) / 2
    for number, line in enumerate(cell.lines):
        yield _text(left + _CELL_WIDTH / 2, first + _LINE * number, line, anchor="middle")


def _box(left: float, top: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="{colour}" '
        'stroke="white"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
