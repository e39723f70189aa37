"""Explanations of distributions: tables for people, and a graph."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.matrix import cells
from layoutsel.cluster.metrics import METRICS
from layoutsel.cluster.segments import Distribution, Route, Segment, shown

_SHOWN_ROUTES = 4
"""Maximum number of routes of a distribution in a table."""


def matrix_table(made: Distributions) -> Table:
    """Table of all metrics of all distributions; the target's own metric has a star."""
    head, *rows = cells(made.distributions)
    table = Table(title=f"{made.model_name}: targets and metrics", title_justify="left")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    return table


def placement_table(made: Distributions) -> Table:
    """Table of the work of each node, by target: its share of the time of one request."""
    table = Table(title="share of a request's work by node", title_justify="left")
    nodes = [node.id for node in made.topology.computing]
    for name in ("target", "routes", *nodes):
        table.add_column(name)
    for one in made.distributions:
        work = {node: 0.0 for node in nodes}
        for route in one.routes:
            for segment in route.segments:
                work[segment.node] += route.weight * segment.us
        total = max(sum(work.values()), 1e-9)
        shares = (f"{us / total:.0%}" if us else "" for us in work.values())
        table.add_row(one.target.label, str(len(one.routes)), *shares)
    return table


def explanation(made: Distributions, chosen: Sequence[Distribution]) -> Iterator[Any]:
    """Yield tables and lines about some of the distributions."""
    yield matrix_table(made)
    for one in chosen:
        yield ""
        yield _summary(one)
        for number, route in enumerate(one.routes[:_SHOWN_ROUTES], 1):
            yield _segments_table(made, one, route, number)
            if route.transfers:
                yield _transfers_table(route)
        if len(one.routes) > _SHOWN_ROUTES:
            left = sum(route.weight for route in one.routes[_SHOWN_ROUTES:])
            yield f"{len(one.routes) - _SHOWN_ROUTES} more routes for {left:.1%} of the requests"
        yield from _lost(made, one)


def _summary(one: Distribution) -> str:
    own = one.metrics[one.target.name]
    text = f"{one.target.label}: {shown(own.predicted, own.unit)}"
    if own.bound is not None and one.gap is not None:
        side = "more" if METRICS[one.target.name].maximised else "less"
        text += (
            f"; proven by {one.solver}: nothing has {side} than {shown(own.bound, own.unit)}, a "
            f"gap of {one.gap:.2%}"
        )
    if one.wider_bound is not None:
        text += f"; with any plans within the nodes: {shown(one.wider_bound, own.unit)}"
    return text


def _segments_table(made: Distributions, one: Distribution, route: Route, number: int) -> Table:
    title = f"route {number}, {route.weight:.1%} of the requests"
    table = Table(title=title, title_justify="left")
    for name in ("segment", "node", "atoms", "sub-graphs", "time", "elsewhere, the target becomes"):
        table.add_column(name)
    for segment in route.segments:
        atoms = " … ".join(dict.fromkeys((segment.atoms[0], segment.atoms[-1])))
        table.add_row(
            segment.id,
            segment.node,
            atoms,
            str(len(segment.subgraphs)),
            f"{segment.us / 1e3:.3f} ±{segment.spread_us / 1e3:.2g} ms",
            elsewhere(made, one, segment),
        )
    return table


def elsewhere(made: Distributions, one: Distribution, segment: Segment) -> str:
    """Text of the best other node for a segment, or why none is given."""
    if not segment.elsewhere:
        if len(made.topology.computing) == 1:
            return "no other node"
        if len(one.routes) > 1:
            return "not tried with several routes"
        kept = "the memories and limits" if one.target.limits else "the memories"
        return f"none found in time within {kept}"
    entry, own = METRICS[one.target.name], one.metrics[one.target.name]
    pick = max if entry.maximised else min
    node = pick(segment.elsewhere, key=segment.elsewhere.__getitem__)
    value = segment.elsewhere[node]
    change = value / own.predicted - 1 if own.predicted else 0.0
    return f"{shown(value, own.unit)} ({change:+.1%}) on {node}"


def _transfers_table(route: Route) -> Table:
    table = Table(title="sent", title_justify="left")
    for name in ("tensor", "from", "to", "bytes", "time"):
        table.add_column(name)
    for sent in route.transfers:
        table.add_row(
            sent.tensor, sent.source, sent.destination, f"{sent.bytes:,}", f"{sent.us / 1e3:.3f} ms"
        )
    return table


def _lost(made: Distributions, one: Distribution) -> Iterator[str]:
    """Yield a line for each node that may be lost."""
    origin = made.topology.origin
    for node in (found.id for found in made.topology.computing):
        if node == origin:
            continue
        routes = one.without.get(node)
        if routes is None:
            if one.without:
                yield f"without {node}: no distribution was found"
            continue
        if routes == one.routes:
            yield f"without {node}: nothing changes, as it runs nothing"
            continue
        used = dict.fromkeys(segment.node for route in routes for segment in route.segments)
        yield f"without {node}: {', '.join(used)}, {len(routes)} routes"


def dot_lines(one: Distribution, name: str) -> Iterator[str]:
    """Lines of a graph of the segments in graphviz's language, coloured by node."""
    nodes = one.nodes
    yield f"digraph {_quoted(name)} {{"
    yield '  node [shape=box, style="filled,rounded", fontname="sans-serif", fontsize=10];'
    yield '  edge [fontname="sans-serif", fontsize=9];'
    for number, route in enumerate(one.routes):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(f'{route.weight:.1%} of the requests')};"
        made = {tensor: s.id for s in route.segments for tensor in s.outputs}
        for segment in route.segments:
            colour = _colour(nodes.index(segment.node), len(nodes))
            label = f"{segment.node}\n{segment.id}\n{segment.us / 1e3:.3g} ms"
            yield (
                f"    {_quoted(f'{number}/{segment.id}')} "
                f"[label={_quoted(label)}, fillcolor={_quoted(colour)}];"
            )
        yield "  }"
        yield from _edges(route, made, number)
    yield "}"


def _edges(route: Route, made: dict[str, str], number: int) -> Iterator[str]:
    sent = {(one.tensor, one.destination): one for one in route.transfers}
    for segment in route.segments:
        for tensor in segment.inputs:
            start = f"{number}/{made[tensor]}" if tensor in made else f"{number}/{tensor}"
            one = sent.get((tensor, segment.node))
            label = f" [label={_quoted(f'{one.us / 1e3:.3g} ms')}, color=red]" if one else ""
            yield f"  {_quoted(start)} -> {_quoted(f'{number}/{segment.id}')}{label};"
        for tensor in segment.outputs:
            if tensor.startswith("output."):
                end = f"{number}/{tensor}"
                yield f"  {_quoted(f'{number}/{segment.id}')} -> {_quoted(end)};"


def _colour(number: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number / max(count, 1), 0.82, 0.7)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
