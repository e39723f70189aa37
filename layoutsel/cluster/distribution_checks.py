"""Checks of distributions: each violation is one error with path, got and expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layoutsel.cluster.segments import Distribution, Route
from layoutsel.documents.saved import Fault

_SAME = 1e-6
"""Difference of sums of shares that is due to rounding."""


def distribution_faults(
    distributions: Sequence[Distribution],
    nodes: Sequence[str],
    classes: Mapping[str, str],
    atoms: Mapping[str, Sequence[str]],
) -> Iterator[Fault]:
    """Yield the inconsistencies of distributions.

    Parameters
    ----------
    distributions
        Distributions to check.
    nodes
        Nodes that compute.
    classes
        Machine class by node.
    atoms
        Names of the atoms by machine class.
    """
    for node in nodes:
        if classes.get(node) not in atoms:
            got = repr(classes.get(node, "nothing"))
            yield f"$.classes.{node}", got, f"one of {', '.join(atoms)}"
    whole = next(iter(atoms.values()), ())
    for name, own in atoms.items():
        if tuple(own) != tuple(whole):
            yield f"$.plans.{name}.stages", f"{len(own)} stages", "equal stages in all plans"
    for number, one in enumerate(distributions):
        path = f"$.distributions[{number}]"
        if one.target.name not in one.metrics:
            known = ", ".join(one.metrics)
            yield f"{path}.target.name", repr(one.target.name), f"one of the metrics {known}"
        yield from _routes(one.routes, nodes, whole, f"{path}.routes")
        for lost, routes in one.without.items():
            where = f"{path}.without.{lost}"
            if lost not in nodes:
                yield where, "an unknown node", f"one of {', '.join(nodes)}"
            yield from _routes(routes, [node for node in nodes if node != lost], whole, where)


def _routes(
    routes: Sequence[Route], nodes: Sequence[str], atoms: Sequence[str], path: str
) -> Iterator[Fault]:
    total = sum(route.weight for route in routes)
    if abs(total - 1) > _SAME or any(route.weight < 0 for route in routes):
        yield path, f"weights that add up to {total:g}", "weights of at least 0 that add up to 1"
    for number, route in enumerate(routes):
        yield from _route(route, nodes, atoms, f"{path}[{number}]")


def _route(route: Route, nodes: Sequence[str], atoms: Sequence[str], path: str) -> Iterator[Fault]:
    ids: set[str] = set()
    made: set[str] = set()
    held: list[str] = []
    for number, segment in enumerate(route.segments):
        where = f"{path}.segments[{number}]"
        if segment.id in ids:
            yield f"{where}.id", repr(segment.id), "another id than that of an earlier segment"
        if segment.node not in nodes:
            yield f"{where}.node", repr(segment.node), f"one of {', '.join(nodes)}"
        for tensor in segment.inputs:
            if not tensor.startswith("input.") and tensor not in made:
                yield f"{where}.inputs", repr(tensor), "an input, or a tensor of a segment before"
        ids.add(segment.id)
        made |= set(segment.outputs)
        held += segment.atoms
    if atoms and sorted(held) != sorted(atoms):
        wrong = sorted(set(held) ^ set(atoms)) or [a for a in held if held.count(a) > 1]
        got = f"segments in which {wrong[0]!r} is missing, unknown or twice"
        yield f"{path}.segments", got, "each atom of the plans once"
