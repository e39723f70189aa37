"""Costs of trunk and branches on every worker, from the cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import layoutsel
from layoutsel.device.threads import available_cores
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.dividing import divide
from layoutsel.exits.division import ExitDivision
from layoutsel.exits.network import ExitNetwork
from layoutsel.planning.plan import Plan
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

UNIT = "cpu"
"""Unit of the workers: all units of the host run on its threads."""
REQUEST_US = 5.0
"""Time of a request outside its stages, as measured on one machine, microseconds."""


@dataclass(frozen=True, kw_only=True)
class PricedExits:
    """Plans of a network for several numbers of threads, its division, and all costs."""

    plans: Mapping[int, Plan]
    """Plan of the whole network by number of threads."""
    division: ExitDivision
    """Trunk and branches."""
    costs: ExitCosts
    """Times on every worker."""


def host_workers(cores: int) -> tuple[WorkerKind, ...]:
    """List the workers of a host: all cores, all but one, and two of one core.

    Parameters
    ----------
    cores
        Number of cores that this process may use.
    """
    counts = dict.fromkeys((cores, max(cores - 1, 1), 1))
    kinds = [(f"{UNIT}-{count}", count) for count in counts]
    if cores > 1:
        kinds.append((f"{UNIT}-1b", 1))
    return tuple(WorkerKind(name=n, unit=UNIT, threads=c, cores=c) for n, c in kinds)


def priced(network: ExitNetwork, *, threads: int | None = None, **options: Any) -> PricedExits:
    """Plan a network for every number of threads, and price its stages.

    Nothing is compiled; :func:`layoutsel.exits.measured_costs.measured` corrects the costs.

    Parameters
    ----------
    network
        A multi-exit network.
    threads
        Number of cores that all workers together may use; those of this process if None.
    **options
        Other options of :func:`layoutsel.plan`.

    Raises
    ------
    LayoutselError
        If the network cannot be planned, or this process has fewer cores.
    """
    available = len(available_cores())
    cores = available if threads is None else threads
    if not 1 <= cores <= available:
        raise LayoutselError(
            f"threads: got {cores}; expected 1 to {available}, the cores of this process"
        )
    workers = host_workers(cores)
    scored = network.scored()
    counts = sorted({kind.threads for kind in workers})
    plans = {count: layoutsel.plan(scored, threads=count, **options) for count in counts}
    first = plans[counts[0]]
    division = divide(first.reads, first.results, len(network.names))
    times = {count: subgraph_times_us(plan) for count, plan in plans.items()}
    if different := [n for n, found in times.items() if found.keys() != times[counts[0]].keys()]:
        raise LayoutselError(
            f"{network.name}: the plan for {different[0]} threads has other sub-graphs than that "
            f"for {counts[0]}: expected the same network in all plans"
        )

    def stages(parts: tuple[tuple[SubgraphId, ...], ...], kind: WorkerKind) -> Any:
        return tuple(tuple(times[kind.threads][id_] for id_ in part) for part in parts)

    costs = ExitCosts(
        workers=workers,
        cores=cores,
        trunk_us={kind.name: stages(division.trunk, kind) for kind in workers},
        branch_us={kind.name: stages(division.branches, kind) for kind in workers},
        needs=division.needs,
        request_us=REQUEST_US,
    )
    return PricedExits(plans=plans, division=division, costs=costs)


def subgraph_times_us(plan: Plan) -> dict[SubgraphId, float]:
    """Time of each sub-graph with the boundaries in front of it, microseconds.

    A boundary to an output of the model is charged to its producer.
    """
    found = {subgraph.id: subgraph.cost_us for subgraph in plan.subgraphs}
    for boundary in plan.boundaries:
        named = [SubgraphId(one) for one in boundary.consumers]
        producer = SubgraphId(boundary.tensor.rpartition(".")[0])
        charged = next((one for one in (*named, producer) if one in found), None)
        if charged is not None:
            found[charged] += boundary.cost_us
    return found
