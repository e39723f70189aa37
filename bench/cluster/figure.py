"""Points of several series between 0 and 1 as an SVG file, drawn by hand: panels below each other, a row for each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_COLOURS = ("#222222", "#1f6fb4", "#c2571a", "#3a8f3a", "#8a4fb0", "#b0a030", "#999999")
_LEFT, _WIDTH, _ROW, _TOP = 190.0, 560.0, 18.0, 54.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One point."""

    panel: str
    label: str
    series: str
    value: float


def draw(rows: Sequence[Row], file: Path, *, title: str) -> None:
    """Write `rows`; the first series is drawn last and largest."""
    series = list(dict.fromkeys(row.series for row in rows))
    panels = list(dict.fromkeys(row.panel for row in rows))
    lines = []
    top = _TOP
    for panel in panels:
        own = [row for row in rows if row.panel == panel]
        lines += _panel(panel, own, series, top)
        top += _ROW * (len({row.label for row in own}) + 2)
    lines += _legend(series)
    lines.append(f'<text x="10" y="18" font-weight="bold">{escape(title)}</text>')
    body = "\n".join(lines)
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 30:g} {top:g}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _panel(name: str, rows: Sequence[Row], series: Sequence[str], top: float) -> Iterator[str]:
    labels = list(dict.fromkeys(row.label for row in rows))
    bottom = top + _ROW * len(labels)
    yield f'<text x="10" y="{top - 2:g}" font-weight="bold">{escape(name)}</text>'
    for tenth in range(0, 11, 2):
        x = _LEFT + _WIDTH * tenth / 10
        yield f'<path d="M{x:g} {top:g}V{bottom:g}" stroke="#ddd"/>'
        yield f'<text x="{x:g}" y="{bottom + 12:g}" text-anchor="middle">{tenth / 10:g}</text>'
    for number, label in enumerate(labels):
        y = top + _ROW * (number + 0.5)
        yield f'<text x="{_LEFT - 8:g}" y="{y + 4:g}" text-anchor="end">{escape(label)}</text>'
        points = sorted(
            (row for row in rows if row.label == label), key=lambda row: -series.index(row.series)
        )
        for row in points:
            place = series.index(row.series)
            x, radius = _LEFT + _WIDTH * min(row.value, 1.05), 5.5 if place == 0 else 4
            yield (
                f'<circle cx="{x:.1f}" cy="{y:g}" r="{radius:g}" fill="{_COLOURS[place]}" fill-opacity="0.85">'
                f"<title>{escape(row.series)}: {row.value:.3f}</title></circle>"
            )


def _legend(series: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(series):
        x = _LEFT + 90 * number
        yield f'<circle cx="{x:g}" cy="32" r="4" fill="{_COLOURS[number]}"/>'
        yield f'<text x="{x + 8:g}" y="36">{escape(name)}</text>'
