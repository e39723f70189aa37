"""Graphviz drawing of a plan: colours show unit and layout, red edges cost time."""

from __future__ import annotations

import colorsys
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from layoutsel.core.files import write_text
from layoutsel.core.processes import ProcessError, run_limited
from layoutsel.planning.plan import Plan, PlannedSubgraph
from layoutsel.planning.problem import Boundary
from layoutsel.report import terminal
from layoutsel.report.plan_tables import microseconds, name_text, operators_text

_HUES = (0.58, 0.09, 0.33, 0.80, 0.16, 0.95)
"""Hues of the units in order of name: blue, orange, green, violet, yellow, rose."""
_LIGHTEST, _DARKEST = 0.90, 0.66
"""Lightness range of the layouts of a unit."""
_RENDER_LIMIT_S = 60.0
"""Time limit of graphviz, seconds."""


def write_dot(plan: Plan, path: Path) -> None:
    """Write the graph of a plan, in the same way as :func:`write_graph`."""
    write_graph(dot_lines(plan), path)


def write_graph(lines: Iterable[str], path: Path) -> None:
    """Write a graph, and next to it an SVG file if graphviz is installed.

    Parameters
    ----------
    lines
        Graph in graphviz's language.
    path
        File to write.

    Raises
    ------
    LayoutselError
        If a file cannot be written.
    """
    write_text(path, "\n".join(lines) + "\n")
    terminal.note("written", str(path))
    graphviz = shutil.which("dot")
    if graphviz is None:
        terminal.note(
            "note", "graphviz's `dot` is not on PATH: no SVG (Debian: apt install graphviz)"
        )
        return
    image = path.with_suffix(".svg")
    what = f"graphviz cannot draw {path}"
    try:
        drawn = run_limited([graphviz, "-Tsvg", path], what=what, limit_s=_RENDER_LIMIT_S)
    except ProcessError as error:
        terminal.note("warning", str(error))
        return
    write_text(image, drawn)
    terminal.note("written", str(image))


def dot_lines(plan: Plan) -> Iterator[str]:
    """Lines of the graph in graphviz's language."""
    colours = _colours(plan.subgraphs)
    yield f"digraph {_quoted(plan.model_name)} {{"
    yield '  node [shape=box, style="filled,rounded", fontname="sans-serif", fontsize=10];'
    yield '  edge [fontname="sans-serif", fontsize=9];'
    for subgraph in plan.subgraphs:
        colour = colours[subgraph.decision.unit, subgraph.decision.layout]
        attributes = f"label={_quoted(_label(subgraph))}, fillcolor={_quoted(colour)}"
        yield f"  {_quoted(subgraph.id)} [{attributes}];"
    paid = _paid(plan.boundaries)
    outside = set()
    for tensor, consumer in _edges(plan):
        producer = tensor.rsplit(".", 1)[0]
        if producer == "input":
            outside.add(tensor)
            producer = tensor
        attributes = _edge_attributes(paid.get((tensor, consumer), ()))
        yield f"  {_quoted(producer)} -> {_quoted(consumer)}{attributes};"
    for tensor in sorted(outside):
        yield f'  {_quoted(tensor)} [shape=ellipse, fillcolor="white"];'
    if plan.results:
        yield '  "output" [shape=ellipse, fillcolor="white"];'
    yield from _legend(colours)
    yield "}"


def _edges(plan: Plan) -> Iterator[tuple[str, str]]:
    for subgraph in plan.subgraphs:
        for tensor in dict.fromkeys(subgraph.reads):
            yield tensor, subgraph.id
    for tensor in dict.fromkeys(plan.results):
        yield tensor, "output"


def _label(subgraph: PlannedSubgraph) -> str:
    name = name_text(subgraph.id, subgraph.names)
    lines = [f"{subgraph.id} {name}".strip(), operators_text(subgraph.operators)]
    return "\n".join([*lines, f"{subgraph.decision}  {microseconds(subgraph.cost_us)} µs"])


def _paid(boundaries: Sequence[Boundary]) -> dict[tuple[str, str], list[Boundary]]:
    found: dict[tuple[str, str], list[Boundary]] = {}
    for boundary in boundaries:
        if boundary.kind == "transform" or boundary.cost_us > 0:
            for consumer in boundary.consumers:
                found.setdefault((boundary.tensor, consumer), []).append(boundary)
    return found


def _edge_attributes(boundaries: Sequence[Boundary]) -> str:
    if not boundaries:
        return ""
    labels = [f"{b.source} > {b.destination}, {microseconds(b.cost_us)} µs" for b in boundaries]
    return f' [color="red3", fontcolor="red3", label={_quoted(chr(10).join(labels))}]'


def _colours(subgraphs: Sequence[PlannedSubgraph]) -> dict[tuple[str, str], str]:
    """Colour of each (unit, layout): the hue shows the unit, the lightness the layout."""
    places = sorted({(s.decision.unit, s.decision.layout) for s in subgraphs})
    units = sorted({unit for unit, _ in places})
    colours = {}
    for number, unit in enumerate(units):
        layouts = [layout for other, layout in places if other == unit]
        for rank, layout in enumerate(layouts):
            step = rank / max(1, len(layouts) - 1)
            lightness = _LIGHTEST - step * (_LIGHTEST - _DARKEST)
            rgb = colorsys.hls_to_rgb(_HUES[number % len(_HUES)], lightness, 0.75)
            colours[unit, layout] = "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
    return colours


def _legend(colours: Mapping[tuple[str, str], str]) -> Iterator[str]:
    yield '  subgraph cluster_legend {\n    label="unit and layout";'
    yield '    fontname="sans-serif"; fontsize=10;'
    for (unit, layout), colour in colours.items():
        name = _quoted(f"legend {unit} {layout}")
        yield f"    {name} [label={_quoted(f'{unit} {layout}')}, fillcolor={_quoted(colour)}];"
    yield "  }"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
