"""Distributions of priced atoms, and new ones for another state without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutsel.cluster.distribution import SCHEMA_VERSION, Distributions
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.plan_targets import plan_targets
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster
from layoutsel.cluster.segments import Target
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.targets import TIME_LIMIT_S
from layoutsel.cluster.topology import Topology
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import ProblemError

_LACKING = "the distributions lack the times of their atoms: plan them from the model"
"""Reason why distributions cannot be planned again."""


def distributions_of(  # noqa: PLR0913 - the parts of the document
    graph: AtomGraph,
    costs: Mapping[str, ClassCosts],
    classes: Mapping[str, str],
    plans: Mapping[str, Plan],
    topology: Topology,
    statistics: Statistics,
    targets: Sequence[Target],
    *,
    time_limit_s: float = TIME_LIMIT_S,
    spares: bool = True,
) -> Distributions:
    """Make distributions of priced atoms; arguments are those of the result's fields."""
    cluster = Cluster(
        graph=graph, classes=classes, costs=costs, routes=MessageRoutes(topology, statistics)
    )
    return Distributions(
        schema_version=SCHEMA_VERSION,
        model_name=graph.model_name,
        model_hash=graph.model_hash,
        topology=topology,
        statistics=statistics,
        classes=classes,
        plans=plans,
        distributions=plan_targets(cluster, targets, time_limit_s=time_limit_s, spares=spares),
        graph=graph,
        costs=costs,
    )


def cluster_of(known: Distributions) -> Cluster:
    """Nodes and network of distributions.

    Raises
    ------
    ProblemError
        If they lack the times of their atoms.
    """
    if known.graph is None or not known.costs:
        raise ProblemError(_LACKING)
    return Cluster(
        graph=known.graph,
        classes=known.classes,
        costs=known.costs,
        routes=MessageRoutes(known.topology, known.statistics, known.engine),
    )


def redistribute(
    known: Distributions,
    statistics: Statistics,
    *,
    targets: Sequence[Target] | None = None,
    lost: Sequence[str] = (),
    time_limit_s: float = TIME_LIMIT_S,
    spares: bool = True,
) -> Distributions:
    """Distribute a network again for another state, without the model: plans stay the same.

    Parameters
    ----------
    known
        Distributions with the times of the atoms.
    statistics
        Present state.
    targets
        Targets; None for those of `known`.
    lost
        Nodes to leave out.
    time_limit_s
        Time limit of each target, seconds.
    spares
        True to plan without each single node as well.

    Raises
    ------
    ProblemError
        If `known` lacks the times of its atoms, or nothing fits.
    """
    if known.graph is None or not known.costs:
        raise ProblemError(_LACKING)
    topology = known.topology
    for node in lost:
        topology = topology.without(node)
    topology.check(file="topology")
    left = {node.id for node in topology.computing}
    vertices = {node.id for node in topology.nodes}
    now = replace(
        statistics,
        nodes={name: state for name, state in statistics.nodes.items() if name in left},
        links=tuple(s for s in statistics.links if {s.source, s.target} <= vertices),
    )
    wanted = [one.target for one in known.distributions] if targets is None else targets
    return distributions_of(
        known.graph,
        known.costs,
        {node: name for node, name in known.classes.items() if node in left},
        known.plans,
        topology,
        now,
        list(wanted),
        time_limit_s=time_limit_s,
        spares=spares,
    )
