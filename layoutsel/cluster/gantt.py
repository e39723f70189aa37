"""Gantt charts of nodes and links as SVG files: a row for each resource, colours for requests."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from layoutsel.cluster.simulated_attempt import Bar
from layoutsel.core.files import write_text

_LEFT, _TOP, _ROW, _WIDTH, _BOTTOM = 150.0, 34.0, 20.0, 900.0, 34.0
_TICKS = 8
"""Greatest number of intervals on the axis of time."""
_GOLDEN = 0.618034
"""Step of the hue from one request to the next: near requests differ clearly."""


def write_gantt(
    bars: Sequence[Bar], file: Path, *, title: str, losses_us: Mapping[str, float] | None = None
) -> None:
    """Draw `bars`, and the times at which nodes were lost.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    write_text(file, "\n".join(_lines(bars, title, losses_us or {})) + "\n")


def _lines(bars: Sequence[Bar], title: str, losses_us: Mapping[str, float]) -> Iterator[str]:
    rows = sorted({bar.resource for bar in bars}, key=lambda name: (_is_link(name), name))
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
    for us in _ticks(first_us, last_us):
        x = _LEFT + (us - first_us) * scale
        yield _line(x, _TOP, bottom, "#ddd")
        yield f'<text x="{x:.1f}" y="{bottom + 14:g}" text-anchor="middle">{us / 1e3:,g}</text>'
    yield f'<text x="{_LEFT + _WIDTH:g}" y="{bottom + 28:g}" text-anchor="end">milliseconds</text>'
    for name, top in tops.items():
        yield f'<text x="{_LEFT - 6:g}" y="{top + 14:g}" text-anchor="end">{escape(name)}</text>'
    for bar in bars:
        x, width = _LEFT + (bar.start_us - first_us) * scale, (bar.end_us - bar.start_us) * scale
        shown = f"request {bar.request}, {bar.step}: {bar.start_us:,.0f} to {bar.end_us:,.0f} µs"
        yield (
            f'<rect x="{x:.2f}" y="{tops[bar.resource] + 2:g}" width="{max(width, 0.3):.2f}" '
            f'height="{_ROW - 4:g}" fill="{_colour(bar.request)}">'
            f"<title>{escape(shown)}</title></rect>"
        )
    for name, us in losses_us.items():
        if first_us <= us <= last_us:
            x = _LEFT + (us - first_us) * scale
            yield _line(x, _TOP - 8, bottom, "#c00")
            yield f'<text x="{x + 3:.1f}" y="{_TOP - 2:g}" fill="#c00">{escape(name)} lost</text>'
    yield "</svg>"


def _is_link(name: str) -> bool:
    """True if a resource is a link or a medium, by its name."""
    return name.startswith(("link ", "medium "))


def _ticks(first_us: float, last_us: float) -> Iterator[float]:
    """Round times between two times."""
    rough_us = (last_us - first_us) / _TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(rough_us))
    step_us = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough_us)
    for number in range(math.ceil(first_us / step_us), math.floor(last_us / step_us) + 1):
        yield number * step_us


def _line(x: float, top: float, bottom: float, colour: str) -> str:
    return f'<path d="M{x:.1f} {top:g}V{bottom:g}" stroke="{colour}"/>'


def _colour(request: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(request * _GOLDEN % 1.0, 0.62, 0.55)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"
