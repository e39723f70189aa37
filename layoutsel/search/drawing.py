"""Drawing of a network as SVG: parts in the colours of their nodes, and sent tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from layoutsel.core.files import write_text
from layoutsel.report.gantt import numbered_colour
from layoutsel.search.found import FoundMessage, FoundNetwork
from layoutsel.search.parts import INPUT, PartGraph

_LEFT, _TOP, _COLUMN, _ROW = 20.0, 64.0, 150.0, 56.0
_BOX = (116.0, 34.0)
"""Width and height of a part."""
_OUTPUT = "output"
"""Name of the network's result in drawings."""
_SENT = "#c03030"
"""Colour of tensors that are sent."""


def draw_network(found: FoundNetwork, graph: PartGraph, file: Path, *, title: str) -> None:
    """Draw a found network.

    Parameters
    ----------
    found
        Network with its placement.
    graph
        Parts of the network.
    file
        File to write.
    title
        Title.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    write_text(file, "\n".join(_lines(found, graph, title)) + "\n")


def _lines(found: FoundNetwork, graph: PartGraph, title: str) -> Iterator[str]:
    origin = next(iter(found.placement.values()))
    home = {**found.placement, INPUT: _origin_of(found, origin)}
    edges = [(tensor, part.name) for part in graph.parts for tensor in part.inputs]
    edges.append((graph.parts[-1].name, _OUTPUT))
    home[_OUTPUT] = home[INPUT]
    places = _places(edges)
    nodes = tuple(dict.fromkeys((home[INPUT], *found.placement.values())))
    colours = {node: numbered_colour(number) for number, node in enumerate(nodes)}
    width = _LEFT + _COLUMN * (1 + max(column for column, _ in places.values()))
    height = _TOP + _ROW * (1 + max(row for _, row in places.values()))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="sans-serif" font-size="11">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield f'<text x="{_LEFT:g}" y="18" font-weight="bold">{escape(title)}</text>'
    for number, node in enumerate(nodes):
        x = _LEFT + 130 * number
        yield f'<rect x="{x:g}" y="28" width="14" height="14" fill="{colours[node]}"/>'
        yield f'<text x="{x + 20:g}" y="40">{escape(node)}</text>'
    sent = {(one.tensor, one.destination): one for one in found.sent}
    labelled: set[FoundMessage] = set()
    for source, destination in edges:
        message = sent.get((source, home[destination]))
        yield from _edge(places, source, destination, is_sent=message is not None)
        if message is not None and message not in labelled:  # a tensor is sent once
            labelled.add(message)
            yield _label(places, source, destination, message)
    labels = {part.name: part.signature.operation for part in graph.parts}
    for name, (column, row) in places.items():
        yield from _box(column, row, name, labels.get(name, ""), colours[home[name]])
    yield "</svg>"


def _origin_of(found: FoundNetwork, default: str) -> str:
    """Node that holds the inputs: the sender of the input, if it is sent at all."""
    return next((one.source for one in found.sent if one.tensor == INPUT), default)


def _places(edges: Sequence[tuple[str, str]]) -> Mapping[str, tuple[int, int]]:
    """Column and row of each part: a column right of its inputs, in the first free row."""
    columns = {INPUT: 0}
    for source, destination in edges:
        columns[destination] = max(columns.get(destination, 0), columns[source] + 1)
    used: dict[int, int] = {}
    places = {}
    for name, column in columns.items():
        places[name] = column, used.get(column, 0)
        used[column] = used.get(column, 0) + 1
    return places


def _centre(place: tuple[int, int]) -> tuple[float, float]:
    return _LEFT + _COLUMN * place[0] + _BOX[0] / 2, _TOP + _ROW * place[1] + _BOX[1] / 2


def _ends(
    places: Mapping[str, tuple[int, int]], source: str, destination: str
) -> tuple[float, float, float, float]:
    (x1, y1), (x2, y2) = _centre(places[source]), _centre(places[destination])
    return x1 + _BOX[0] / 2, y1, x2 - _BOX[0] / 2, y2


def _edge(
    places: Mapping[str, tuple[int, int]], source: str, destination: str, *, is_sent: bool
) -> Iterator[str]:
    x1, y1, x2, y2 = _ends(places, source, destination)
    style = f'stroke="{_SENT}" stroke-dasharray="4 3"' if is_sent else 'stroke="#888"'
    yield (
        f'<path d="M {x1:g} {y1:g} C {x1 + 20:g} {y1:g} {x2 - 20:g} {y2:g} {x2:g} {y2:g}" '
        f'fill="none" stroke-width="2" {style}/>'
    )


def _label(
    places: Mapping[str, tuple[int, int]], source: str, destination: str, sent: FoundMessage
) -> str:
    x1, y1, x2, y2 = _ends(places, source, destination)
    text = f"{sent.channels} of {sent.all_channels} channels, {sent.bytes} bytes"
    return (
        f'<text x="{(x1 + x2) / 2:g}" y="{(y1 + y2) / 2 - 22:g}" text-anchor="middle" '
        f'font-size="10" fill="{_SENT}" stroke="white" stroke-width="3" '
        f'paint-order="stroke">{escape(text)}</text>'
    )


def _box(column: int, row: int, name: str, label: str, colour: str) -> Iterator[str]:
    x, y = _LEFT + _COLUMN * column, _TOP + _ROW * row
    width, height = _BOX
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
        f'fill="{colour}" stroke="#555"/>'
    )
    middle = x + width / 2
    yield f'<text x="{middle:g}" y="{y + 14:g}" text-anchor="middle">{escape(name)}</text>'
    yield (
        f'<text x="{middle:g}" y="{y + 28:g}" text-anchor="middle" font-weight="bold">'
        f"{escape(label)}</text>"
    )
