"""A lower bound on the makespans of all schedules of all plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linprog

from layoutsel.planning.makespan import reads_of
from layoutsel.planning.problem import (
    KINDS,
    OUTSIDE,
    Option,
    Place,
    PlanningProblem,
    Tensor,
    source_places,
)
from tvm_passes.decision import SubgraphId


def lower_bound(problem: PlanningProblem) -> float:
    """No schedule of any decisions is shorter, microseconds: the longest path, and the work of all processors."""
    return max(_path_bound(problem), _work_bound(problem))


def _path_bound(problem: PlanningProblem) -> float:
    """The longest chain of sub-graphs and boundaries, where every consumer may have its producers as it likes them."""
    reads = reads_of(problem)
    ends: dict[SubgraphId, np.ndarray] = {}
    longest = 0.0
    for node in problem.nodes:
        start = np.zeros(len(node.options))
        for tensor, index in reads[node.id]:
            places = [option.wanted[index] for option in node.options]
            start = np.maximum(start, _arrivals(problem, tensor, places, ends))
        ends[node.id] = start + np.array([option.cost_us for option in node.options])
        longest = max(longest, float(ends[node.id].min()))
    for tensor in problem.tensors:
        if any(use.consumer is None for use in tensor.uses):
            longest = max(longest, float(_arrivals(problem, tensor, [OUTSIDE], ends)[0]))
    return longest


def _arrivals(
    problem: PlanningProblem,
    tensor: Tensor,
    wanted: Sequence[Place],
    ends: Mapping[SubgraphId, np.ndarray],
) -> np.ndarray:
    """When a tensor can be at each of these places at the earliest."""
    sources = source_places(problem.by_id, tensor)
    price = np.array(
        [[sum(tensor.price(kind, s, w) for kind in KINDS) for w in wanted] for s in sources]
    )
    made = ends[tensor.producer] if tensor.producer is not None else np.zeros(1)
    return (made[:, None] + price).min(axis=0)


def _work_bound(problem: PlanningProblem) -> float:
    """Least time of the busiest processor, where sub-graphs may be cut into parts and boundaries are free.

    A linear programme: minimise t, where x[n, m] of sub-graph n runs in memory m, at its cheapest there.
    """
    cheapest = [_cheapest(node.options) for node in problem.nodes]
    memories = sorted({memory for costs in cheapest for memory in costs})
    pairs = [(n, memory) for n, costs in enumerate(cheapest) for memory in costs]
    work = np.zeros((len(memories), len(pairs) + 1))
    whole = np.zeros((len(cheapest), len(pairs) + 1))
    for column, (n, memory) in enumerate(pairs):
        work[memories.index(memory), column] = cheapest[n][memory]
        whole[n, column] = 1.0
    work[:, -1] = -1.0
    objective = np.zeros(len(pairs) + 1)
    objective[-1] = 1.0
    found = linprog(
        objective, A_ub=work, b_ub=np.zeros(len(memories)), A_eq=whole, b_eq=np.ones(len(cheapest))
    )
    return float(found.fun) if found.success else 0.0


def _cheapest(options: Sequence[Option]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for option in options:
        costs[option.memory] = min(option.cost_us, costs.get(option.memory, np.inf))
    return costs
