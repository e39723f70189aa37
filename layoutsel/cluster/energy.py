"""Energy of a placement: power of busy processors times their time, and of the bytes on links."""

from __future__ import annotations

from dataclasses import replace

from layoutsel.cluster.problem import Cluster
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.resources import Resources

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
    watts = _watts(cluster)

    def worked(steps: tuple[Resources, ...]) -> float:
        return sum(us * watts.get(name, 0.0) for step in steps for name, us in step.busy_us.items())

    def computing(option: Option) -> Option:
        work = problem.resources.compute(option.decision.unit, option.memory, option.cost_us)
        rate = watts.get(option.memory, 0.0)
        return replace(option, cost_us=worked((work,)), spread_us=option.spread_us * rate)

    def sent(tensor: Tensor) -> Tensor:
        copies, transforms = {}, {}
        for pair, us in tensor.copy_us.items():
            route = cluster.routes.route(*(cluster.node_in(memory) for memory in pair))
            wires_uj = route.nj_per_byte * tensor.bytes * 1e-3
            copies[pair] = worked(tuple(problem.resources.boundary("copy", *pair, us))) + wires_uj
        for (source, destination), us in tensor.transform_us.items():
            memory = cluster.memory_at(destination)
            transforms[source, destination] = us * watts.get(memory, 0.0) if us else 0.0
        return replace(tensor, copy_us=copies, transform_us=transforms)

    def atom(node: PricedSubgraph) -> PricedSubgraph:
        return replace(node, options=tuple(map(computing, node.options)))

    return replace(
        problem,
        nodes=tuple(map(atom, problem.nodes)),
        tensors=tuple(map(sent, problem.tensors)),
    )


def _watts(cluster: Cluster) -> dict[str, float]:
    """Power of each processor while it is busy, watts."""
    return {
        cluster.routes.processor(node): power.busy
        for node in cluster.nodes
        if (power := cluster.topology.by_id[node].power_w) is not None
    }
