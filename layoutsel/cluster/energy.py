"""Energy of a placement: power of busy processors times their time, and of the bytes on links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutsel.cluster.problem import Cluster
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph

_Pair = tuple[str, str]
"""Two memories."""
UJ = 1e-6
"""A microjoule, joules: a watt for a microsecond."""


def without_power(cluster: Cluster) -> tuple[str, ...]:
    """Nodes whose power is unknown, so that energies are unknown as well."""
    by_id = cluster.topology.by_id
    return tuple(node for node in cluster.nodes if by_id[node].power_w is None)


def energy_problem(cluster: Cluster) -> PlanningProblem:
    """Copy the problem of a cluster with energies, in microjoules, in place of times.

    The energies follow from the resources that each step occupies. A node without a known power
    counts as one without losses.
    """
    problem = cluster.problem
    watts = watts_of(cluster)

    def computing(option: Option) -> Option:
        rate = watts.get(option.memory, 0.0)
        return replace(option, cost_us=option.cost_us * rate, spread_us=option.spread_us * rate)

    def sent(tensor: Tensor) -> Tensor:
        return replace(tensor, copy_us=sent_uj(cluster, watts, tensor))

    def atom(node: PricedSubgraph) -> PricedSubgraph:
        return replace(node, options=tuple(map(computing, node.options)))

    return replace(
        problem,
        nodes=tuple(map(atom, problem.nodes)),
        tensors=tuple(map(sent, problem.tensors)),
    )


def sent_uj(cluster: Cluster, watts: Mapping[str, float], tensor: Tensor) -> dict[_Pair, float]:
    """Energy of the messages of a tensor, microjoules: processors and wires."""
    return {
        pair: _message_uj(cluster, watts, pair, us, tensor.bytes)
        for pair, us in tensor.copy_us.items()
    }


def _message_uj(
    cluster: Cluster, watts: Mapping[str, float], pair: _Pair, us: float, size: int
) -> float:
    route = cluster.routes.route(*(cluster.node_in(memory) for memory in pair))
    steps = cluster.problem.resources.boundary("copy", *pair, us)
    worked = sum(us * watts.get(name, 0.0) for step in steps for name, us in step.busy_us.items())
    return worked + route.nj_per_byte * size * 1e-3


def watts_of(cluster: Cluster) -> dict[str, float]:
    """Power of each processor while it is busy, watts."""
    return {
        cluster.routes.processor(node): power.busy
        for node in cluster.nodes
        if (power := cluster.topology.by_id[node].power_w) is not None
    }
