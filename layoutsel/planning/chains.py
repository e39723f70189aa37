"""Chains of sub-graphs, which plans usually keep in one memory."""

from __future__ import annotations

from collections.abc import Iterable

from layoutsel.planning.problem import PlanningProblem, PricedSubgraph
from tvm_passes.decision import Decision, SubgraphId


def cheapest_in(memory: str, nodes: Iterable[PricedSubgraph]) -> dict[SubgraphId, Decision]:
    """Choose the cheapest candidates in a memory, for sub-graphs that have any there."""
    there = {node.id: [o for o in node.options if o.memory == memory] for node in nodes}
    return {
        id_: min(options, key=lambda option: option.cost_us).decision
        for id_, options in there.items()
        if options
    }


def chains(problem: PlanningProblem) -> list[list[SubgraphId]]:
    """Find maximal chains of sub-graphs without inner branches and joins, the longest first."""
    before: dict[SubgraphId, set[SubgraphId]] = {node.id: set() for node in problem.nodes}
    behind: dict[SubgraphId, set[SubgraphId]] = {node.id: set() for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if tensor.producer is not None and use.consumer is not None:
                before[use.consumer].add(tensor.producer)
                behind[tensor.producer].add(use.consumer)
    found: dict[SubgraphId, list[SubgraphId]] = {}
    for node in problem.nodes:
        makers = before[node.id]
        maker = next(iter(makers)) if len(makers) == 1 else None
        if maker is not None and len(behind[maker]) == 1:
            found[node.id] = found[maker]
        else:
            found[node.id] = []
        found[node.id].append(node.id)
    distinct = {id(chain): chain for chain in found.values()}
    return sorted(distinct.values(), key=len, reverse=True)
