"""Memory that is missing where no placement fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutsel.cluster.memory import request_bytes
from layoutsel.cluster.placements import Placements
from layoutsel.cluster.problem import Cluster
from layoutsel.planning.problem import ProblemError

_SAME = 1e-6
"""Share of all bytes that is due to rounding."""


def missing(cluster: Cluster, *, time_limit_s: float = 10.0) -> str:
    """Describe the least lack of memory if no placement fits.

    Parameters
    ----------
    cluster
        Nodes and network.
    time_limit_s
        Time limit, seconds.

    Raises
    ------
    ProblemError
        If a placement fits after all.
    """
    programme = Placements(cluster)
    lacks = {node: programme.variables([1.0], most=np.inf) for node in cluster.nodes}
    unit = max(sum(cluster.graph.weight_bytes.values()) + request_bytes(cluster.graph), 1.0)
    for node, lack in lacks.items():
        capacity = cluster.capacity(node)
        if capacity is None:
            continue
        for step in range(len(cluster.graph.atoms)):
            terms = [(one, size / unit) for one, size in programme.live(node, step)]
            own = programme.own_bytes(node)
            programme.row([*terms, (lack, -1.0)], -np.inf, (capacity - own) / unit)
    result = programme.minimised(time_limit_s=time_limit_s, gap=0.01)
    if result.x is None:
        return "no placement fits the nodes' memories"
    found = {node: float(result.x[lack]) * unit for node, lack in lacks.items()}
    short = {node: size for node, size in found.items() if size > _SAME * unit}
    if not short:
        raise ProblemError("a placement fits the nodes' memories")
    placement = programme.placement(result.x)
    return "; ".join(_missing_on(cluster, placement, node, size) for node, size in short.items())


def _missing_on(cluster: Cluster, placement: Mapping[str, str], node: str, size: float) -> str:
    """Describe the lack of one node, with its largest atom."""
    here = [atom for atom, where in placement.items() if where == node]
    weights = cluster.graph.weight_bytes
    largest = max(here, key=lambda atom: weights.get(atom, 0.0), default=None)
    named = ""
    if largest is not None:
        held = cluster.graph.atoms[largest]
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        named = (
            f" (its largest part is {held[0]}{more}, with {_megabytes(weights.get(largest, 0.0))} "
            f"of weights)"
        )
    capacity = cluster.capacity(node) or 0.0
    return f"{_megabytes(size)} missing on {node}, which has {_megabytes(capacity)}{named}"


def _megabytes(size: float) -> str:
    """Size in megabytes, to three digits."""
    return f"{size / 1e6:.3g} MB"
