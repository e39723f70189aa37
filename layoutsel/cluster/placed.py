"""Distribution of a network whose placement is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layoutsel.cluster.classes import PlannedClass, costs_of, graph_in_atoms
from layoutsel.cluster.distribution import SCHEMA_VERSION, Distributions
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import LATENCY, Predictor, alone
from layoutsel.cluster.plan_targets import metrics_of
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster
from layoutsel.cluster.routes import routes_of
from layoutsel.cluster.segments import Distribution, Target
from layoutsel.planning.plan import Plan
from tvm_passes.decision import SubgraphId


def placed_distributions(
    planned: Sequence[PlannedClass],
    atoms: Mapping[str, Sequence[SubgraphId]],
    placement: Mapping[str, str],
    routes: MessageRoutes,
) -> Distributions:
    """Describe a network on the nodes of a placement, with its predicted metrics.

    Parameters
    ----------
    planned
        Plan of the whole network for each class of machines.
    atoms
        Sub-graphs by atom, in a valid order of execution.
    placement
        Node of each atom.
    routes
        Topology in its present state, with the engine's own time.
    """
    graph = graph_in_atoms(planned[0], atoms)
    return priced_distributions(
        graph,
        costs_of(graph, planned),
        {node: one.machine_class.name for one in planned for node in one.machine_class.nodes},
        {one.machine_class.name: one.plan.in_stages(graph.atoms) for one in planned},
        placement,
        routes,
    )


def priced_distributions(
    graph: AtomGraph,
    costs: Mapping[str, ClassCosts],
    classes: Mapping[str, str],
    plans: Mapping[str, Plan],
    placement: Mapping[str, str],
    routes: MessageRoutes,
) -> Distributions:
    """Describe priced atoms on the nodes of a placement; arguments are fields of the result."""
    cluster = Cluster(graph=graph, classes=classes, costs=costs, routes=routes)
    predictor, mix = Predictor(cluster), alone(placement)
    distribution = Distribution(
        target=Target(name=LATENCY),
        routes=routes_of(predictor, mix),
        metrics=metrics_of(predictor, mix, {}),
        solver="given",
        time_s=0.0,
    )
    return Distributions(
        schema_version=SCHEMA_VERSION,
        model_name=graph.model_name,
        model_hash=graph.model_hash,
        topology=routes.topology,
        statistics=routes.statistics,
        classes=classes,
        plans=plans,
        distributions=(distribution,),
        graph=graph,
        costs=costs,
        engine=routes.engine,
    )
