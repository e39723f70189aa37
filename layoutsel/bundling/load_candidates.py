"""Bundles of a few candidates of a model, to be timed under load on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layoutsel.bundling.candidates import write_requests
from layoutsel.bundling.making import Making
from layoutsel.compile.measuring import request_for
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.core.workload import Cost
from layoutsel.cost.graph import Subgraph
from layoutsel.cost.measured import Request
from layoutsel.cost.model import Question
from tvm_passes.decision import Decision

SUBGRAPHS = 8
"""Maximum number of sub-graphs of a model."""
_MOST_WEIGHTS_BYTES = 16 << 20
"""Largest weights of a sub-graph, bytes, as all candidates are in memory at once."""


def write_load_candidates(
    model: Any, threads: int, path: Path, subgraphs: int = SUBGRAPHS
) -> list[Request]:
    """Compile one candidate each of some sub-graphs of a model, with the units in turns.

    The sub-graphs are distinct, and evenly spaced among all in order of their predicted times. The
    candidate is the predicted best one of its unit.

    Parameters
    ----------
    model
        Model as in :func:`layoutsel.optimize`.
    threads
        Number of threads of the candidates.
    path
        Bundle to write.
    subgraphs
        Maximum number of sub-graphs.

    Returns
    -------
    list
        Requests of the candidates.
    """
    session = Session.open(model, threads=threads)
    offers = Offers.of(session)
    chosen = [request_for(offers, *one) for one in _chosen(offers, subgraphs)]
    with tempfile.TemporaryDirectory(prefix="layoutsel-load-") as folder:
        write_requests(Making(session, Path(folder)), offers, chosen, (), path)
    return chosen


def _chosen(offers: Offers, most: int) -> Iterator[tuple[Subgraph, Decision]]:
    ranked = {}
    for key, subgraph in {
        one.structural_hash: one for one in offers.session.graph.subgraphs
    }.items():
        best = _best_by_unit(offers, subgraph)
        if best and offers.workloads[subgraph.id].weight_bytes <= _MOST_WEIGHTS_BYTES:
            ranked[min(us for us, _ in best.values()), key] = subgraph, best
    every = [ranked[one] for one in sorted(ranked)]
    count = min(most, len(every))
    # The middles of `count` equal parts of the order.
    for number in range(count):
        subgraph, best = every[(2 * number + 1) * len(every) // (2 * count)]
        units = sorted(best)
        yield subgraph, best[units[number % len(units)]][1]


def _best_by_unit(offers: Offers, subgraph: Subgraph) -> dict[str, tuple[float, Decision]]:
    """Predicted best decision of each unit on the host, with its time in microseconds."""
    decisions = [d for d in offers.candidates[subgraph.id].decisions if d.device.is_host]
    asked = [Question(offers.asked(subgraph, one), one) for one in decisions]
    found: dict[str, tuple[float, Decision]] = {}
    for decision, cost in zip(decisions, offers.costs.learned.subgraphs(asked), strict=True):
        known = found.get(decision.unit)
        if isinstance(cost, Cost) and (known is None or cost.us < known[0]):
            found[decision.unit] = cost.us, decision
    return found
