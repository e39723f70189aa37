"""Costs of trunk and branches on every worker, from the cost model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import layoutsel
from layoutsel.device.threads import available_cores
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.device_workers import (
    CANCEL_WITHIN_US,
    device_plan,
    device_workers,
    divided_units,
    limited,
)
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
    devices: Mapping[str, Plan] = field(default_factory=dict)
    """Plan of the whole network by worker on a device."""
    cancel_within_us: float = CANCEL_WITHIN_US
    """Time in which a cancelled device ends the work in its queue, microseconds."""

    def with_costs(self, costs: ExitCosts) -> PricedExits:
        """Copy with other times, which the limits of work on devices follow."""
        workers = tuple(
            limited(
                kind,
                (*costs.trunk_us[kind.name], *costs.branch_us[kind.name]),
                self.cancel_within_us,
            )
            for kind in costs.workers
        )
        return replace(self, costs=replace(costs, workers=workers))


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


def priced(
    network: ExitNetwork,
    *,
    threads: int | None = None,
    units: Sequence[str] | None = None,
    cancel_within_us: float = CANCEL_WITHIN_US,
    **options: Any,
) -> PricedExits:
    """Plan a network for every number of threads and every device, and price its stages.

    Nothing is compiled; :func:`layoutsel.exits.measured_costs.measured` corrects the costs.

    Parameters
    ----------
    network
        A multi-exit network.
    threads
        Number of cores that all workers together may use; those of this process if None.
    units
        Compute units to choose from, those of devices as workers; all of the host if None.
    cancel_within_us
        Time in which a cancelled device ends the work in its queue, microseconds.
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
    of_host, of_devices = divided_units(units)
    workers = host_workers(cores)
    scored = network.scored()
    counts = sorted({kind.threads for kind in workers})
    plans = {
        count: layoutsel.plan(scored, threads=count, units=of_host, **options) for count in counts
    }
    found = {
        kind: device_plan(scored, kind, of_host, threads=kind.threads, **options)
        for kind in device_workers(of_devices)
    }
    devices = {kind: plan for kind, plan in found.items() if plan is not None}
    first = plans[counts[0]]
    division = divide(first.reads, first.results, len(network.names))
    own = {kind: plans[kind.threads] for kind in workers} | devices
    times = {kind: subgraph_times_us(plan) for kind, plan in own.items()}
    _check_equal(times, network.name)

    def stages(parts: tuple[tuple[SubgraphId, ...], ...], kind: WorkerKind) -> Any:
        return tuple(tuple(times[kind][id_] for id_ in part) for part in parts)

    costs = ExitCosts(
        workers=tuple(own),
        cores=cores,
        trunk_us={kind.name: stages(division.trunk, kind) for kind in own},
        branch_us={kind.name: stages(division.branches, kind) for kind in own},
        needs=division.needs,
        request_us=REQUEST_US,
    )
    return PricedExits(
        plans=plans,
        division=division,
        costs=costs,
        devices={kind.name: plan for kind, plan in devices.items()},
        cancel_within_us=cancel_within_us,
    ).with_costs(costs)


def _check_equal(times: Mapping[WorkerKind, Iterable[SubgraphId]], name: str) -> None:
    """Reject plans with different sub-graphs."""
    first, *others = times
    for kind in others:
        if set(times[kind]) != set(times[first]):
            raise LayoutselError(
                f"{name}: the plan for the worker {kind.name} has other sub-graphs than that for "
                f"{first.name}: expected the same network in all plans"
            )


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
