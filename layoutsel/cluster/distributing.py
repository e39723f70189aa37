"""From a model and a topology to distributions: one plan per machine class, then the targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layoutsel.cluster.asked import check_target
from layoutsel.cluster.atoms import MOST_ATOMS
from layoutsel.cluster.classes import (
    PlannedClass,
    atom_graph,
    costs_of,
    machine_classes,
    plan_class,
)
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.metrics import LATENCY, METRICS
from layoutsel.cluster.redistributing import cluster_of, distributions_of
from layoutsel.cluster.segments import Distribution, Target
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.targets import TIME_LIMIT_S
from layoutsel.cluster.topology import Topology
from layoutsel.cluster.wider import wider_bounds
from layoutsel.compile.options import Options
from layoutsel.planning.problem import ProblemError

_LOG = logging.getLogger(__name__)


def distribute(  # noqa: PLR0913 - the whole job has that many choices, each with a default
    model: Any,
    topology: Topology | str | Path,
    statistics: Statistics | str | Path | None = None,
    targets: Sequence[Target | str] = (LATENCY,),
    *,
    folder: Path | str | None = None,
    most_atoms: int = MOST_ATOMS,
    time_limit_s: float = TIME_LIMIT_S,
    spares: bool = True,
    wider: bool = True,
    **options: Any,
) -> Distributions:
    """Divide a network over the nodes of a topology, once for each target.

    Parameters
    ----------
    model
        Model as in :func:`layoutsel.optimize`.
    topology
        Topology, or the path of its file.
    statistics
        Present state, or the path of its file; None for idle nodes and links as in the topology.
    targets
        Targets, or their names: ``latency``, ``throughput``, ``energy``, ``memory``.
    folder
        Folder that machine files are relative to; None for that of the topology's file.
    most_atoms
        Maximum number of parts that nodes exchange.
    time_limit_s
        Time limit of each target, seconds.
    spares
        True to plan without each single node as well.
    wider
        True to bound what plans within the nodes made for each distribution could gain.
    **options
        Options of :func:`layoutsel.plan` for the plans of the nodes.

    Raises
    ------
    LayoutselError
        If a file is inconsistent, the model cannot be planned, or nothing fits.
    """
    if not isinstance(topology, Topology):
        folder = Path(topology).parent if folder is None else folder
        topology = Topology.load(topology)
    topology.check(file="topology")
    now = statistics if isinstance(statistics, Statistics) else Statistics()
    if isinstance(statistics, str | Path):
        now = Statistics.load(statistics, topology)
    now.check(topology)
    wanted = [Target(name=one) if isinstance(one, str) else one for one in targets]
    if not wanted:
        raise ProblemError("got no target; expected at least one")
    for target in wanted:
        check_target(target)
    asked = Options(**options)
    classes = machine_classes(topology, Path(folder or "."))
    planned = []
    for one in classes:
        _LOG.info("planning for %s: %s", one.name, ", ".join(one.nodes))
        planned.append(plan_class(model, one, asked))
    graph = atom_graph(planned, most_atoms)
    plans = {one.machine_class.name: one.plan.in_stages(graph.atoms) for one in planned}
    made = distributions_of(
        graph,
        costs_of(graph, planned),
        {node: one.name for one in classes for node in one.nodes},
        plans,
        topology,
        now,
        wanted,
        time_limit_s=time_limit_s,
        spares=spares,
    )
    return _with_wider_bounds(made, planned, time_limit_s) if wider else made


def _with_wider_bounds(
    made: Distributions, planned: Sequence[PlannedClass], time_limit_s: float
) -> Distributions:
    """Add the bounds that hold whatever the plans within the nodes are."""
    found = wider_bounds(
        cluster_of(made),
        {one.machine_class.name: one.on_node for one in planned},
        list(dict.fromkeys(one.target.name for one in made.distributions)),
        time_limit_s=time_limit_s,
    )
    distributions = tuple(
        replace(one, wider_bound=_wider(one, found.get(one.target.name)))
        for one in made.distributions
    )
    return replace(made, distributions=distributions)


def _wider(one: Distribution, bound: float | None) -> float | None:
    """Return the wider of a bound and that of the plans at hand."""
    own = one.metrics[one.target.name].bound
    if bound is None or own is None:
        return None
    return max(bound, own) if METRICS[one.target.name].maximised else min(bound, own)
