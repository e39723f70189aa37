"""Bounds on all distributions, also those whose nodes' own plans would be chosen for them.

Distributions use one plan per machine class. The relaxed problem of this module has all candidates
of each sub-graph on each node instead; among those with equal layouts, only the cheapest counts.
Hand-overs and copies within a node are free. A layout transform costs as little as the cheapest way
of any class from layout to layout, once for all nodes. So no distribution costs less than the best
plan of the relaxed problem, however atoms are cut and whatever the nodes' plans are.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from layoutsel.cluster.class_costs import ClassProblem
from layoutsel.cluster.energy import UJ, sent_uj, watts_of
from layoutsel.cluster.metrics import ENERGY, HZ, LATENCY, THROUGHPUT
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.resources import ClusterResources
from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import Tensor
from layoutsel.planning.columns import best_mixture
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.problem import (
    Option,
    PlanningProblem,
    PricedSubgraph,
    source_places,
    wanted_places,
)
from layoutsel.planning.solve import solve
from tvm_passes.decision import Decision
from tvm_passes.units.entry import HOST_UNIT

_Prices = dict[tuple[str, str], float]
"""Prices by (source, destination), microseconds."""


def relaxed_problem(cluster: Cluster, classes: Mapping[str, ClassProblem]) -> PlanningProblem:
    """Make the relaxed problem.

    Parameters
    ----------
    cluster
        Nodes with their classes and links.
    classes
        Network on one node, by class.
    """
    problems = {name: one.problem for name, one in classes.items()}
    first = next(iter(problems.values()))
    by_class = {
        name: [_collapsed(node) for node in problem.nodes] for name, problem in problems.items()
    }
    quickest = min(cluster.routes.statistics.slowdown(node) for node in cluster.nodes)
    nodes = tuple(
        replace(
            node,
            options=tuple(
                option
                for home in cluster.nodes
                for option in _on(cluster, home, by_class[cluster.classes[home]][number])
            ),
            declines=(),
        )
        for number, node in enumerate(first.nodes)
    )
    return replace(
        first,
        nodes=nodes,
        tensors=tuple(
            _tensor(
                cluster,
                tensor,
                nodes,
                _direct([one.tensors[number] for one in problems.values()], classes, tensor),
                quickest,
            )
            for number, tensor in enumerate(first.tensors)
        ),
        resources=ClusterResources(cluster.routes),
        stands_for={},
        limits={},
        objective="sum",
    )


def _collapsed(node: PricedSubgraph) -> list[Option]:
    """Keep the cheapest candidate of each combination of layouts."""
    best: dict[tuple[tuple[str, ...], tuple[str, ...]], Option] = {}
    for option in node.options:
        key = option.in_layouts, option.out_layouts
        if key not in best or option.cost_us < best[key].cost_us:
            best[key] = option
    return list(best.values())


def _on(cluster: Cluster, home: str, options: Sequence[Option]) -> list[Option]:
    """Copy candidates of a class to a node; numbers in place of layouts keep decisions apart."""
    slow = cluster.routes.statistics.slowdown(home)
    node = "" if home == cluster.topology.origin else home
    return [
        replace(
            option,
            decision=Decision(unit=HOST_UNIT, layout=f"{number}", node=node),
            cost_us=option.cost_us * slow,
        )
        for number, option in enumerate(options)
    ]


def _tensor(
    cluster: Cluster,
    tensor: Tensor,
    nodes: Sequence[PricedSubgraph],
    direct: _Prices,
    quickest: float,
) -> Tensor:
    """Price the messages of a tensor, and the cheapest transforms of any class."""
    by_id = {node.id: node for node in nodes}
    made = {place.layout for place in source_places(by_id, tensor)}
    wanted = {place.layout for use in tensor.uses for place in wanted_places(by_id, use)}
    least = _ways(direct, made | wanted)
    memory = cluster.routes.processor
    origin = cluster.topology.origin
    sources = (origin,) if tensor.producer is None else cluster.nodes
    ends = [(a, b) for a, b in itertools.product(sources, cluster.nodes) if a != b]
    return replace(
        tensor,
        transform_us={
            (a, b): us * quickest
            for (a, b), us in least.items()
            if a in made and b in wanted and a != b
        },
        crossing_us=dict.fromkeys(((HOST, HOST_UNIT), (HOST_UNIT, HOST)), 0.0),
        copy_us={
            (memory(a), memory(b)): cluster.routes.route(a, b).us(tensor.bytes) for a, b in ends
        },
    )


def _direct(same: Sequence[Tensor], classes: Mapping[str, ClassProblem], tensor: Tensor) -> _Prices:
    """Collect the least price of each transform; those between classes' plans may have none."""
    direct: _Prices = {}
    for one in same:
        for pair, us in one.transform_us.items():
            direct[pair] = min(us, direct.get(pair, us))
    made = sorted({one.made(tensor).layout for one in classes.values()})
    return dict.fromkeys(itertools.permutations(made, 2), 0.0) | direct


def _ways(direct: _Prices, layouts: set[str]) -> _Prices:
    """Compute the cheapest way between each two layouts (Floyd, Warshall); free without any."""
    known = sorted(layouts | {layout for pair in direct for layout in pair})
    least = {
        (a, b): 0.0 if a == b else direct.get((a, b), math.inf)
        for a, b in itertools.product(known, repeat=2)
    }
    for via, a, b in itertools.product(known, repeat=3):
        least[a, b] = min(least[a, b], least[a, via] + least[via, b])
    return {pair: us if math.isfinite(us) else 0.0 for pair, us in least.items()}


def energy_of(cluster: Cluster, problem: PlanningProblem) -> PlanningProblem:
    """Copy the relaxed problem with energies, in microjoules; transforms at the least power."""
    watts = watts_of(cluster)
    least = min(watts.values(), default=0.0)

    def computing(option: Option) -> Option:
        return replace(option, cost_us=option.cost_us * watts[option.memory])

    def sent(tensor: Tensor) -> Tensor:
        return replace(
            tensor,
            transform_us={pair: us * least for pair, us in tensor.transform_us.items()},
            copy_us=sent_uj(cluster, watts, tensor),
        )

    return replace(
        problem,
        nodes=tuple(
            replace(node, options=tuple(map(computing, node.options))) for node in problem.nodes
        ),
        tensors=tuple(map(sent, problem.tensors)),
    )


def wider_bounds(
    cluster: Cluster,
    classes: Mapping[str, ClassProblem],
    metrics: Sequence[str],
    *,
    time_limit_s: float,
) -> dict[str, float]:
    """Bound metrics for all distributions, whatever the nodes' plans are.

    Parameters
    ----------
    cluster
        Nodes with their classes and links.
    classes
        Network on one node, by class.
    metrics
        Names of the metrics; memory does not depend on plans.
    time_limit_s
        Time limit, seconds.
    """
    problem = relaxed_problem(cluster, classes)
    asked = [name for name in metrics if name in _BOUNDS]
    deadline = time.monotonic() + time_limit_s
    found = {}
    for number, name in enumerate(asked):
        left_s = max(deadline - time.monotonic(), 0.1) / (len(asked) - number)
        found[name] = _BOUNDS[name](cluster, problem, left_s)
    return found


def _latency(cluster: Cluster, problem: PlanningProblem, time_limit_s: float) -> float:
    del cluster
    return relaxed(problem, time_limit_s=time_limit_s).bound_us


def _energy(cluster: Cluster, problem: PlanningProblem, time_limit_s: float) -> float:
    return solve(energy_of(cluster, problem), time_limit_s=time_limit_s).bound_us * UJ


def _throughput(cluster: Cluster, problem: PlanningProblem, time_limit_s: float) -> float:
    del cluster
    return best_mixture(problem, time_limit_s=time_limit_s).bound * HZ


_BOUNDS: Mapping[str, Callable[[Cluster, PlanningProblem, float], float]] = {
    LATENCY: _latency,
    THROUGHPUT: _throughput,
    ENERGY: _energy,
}
"""Functions of (cluster, relaxed problem, time limit in seconds) that return a bound, by metric."""
