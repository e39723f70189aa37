"""Costs of trunk and branches on every worker, from the cost model and short measurements."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import layoutsel
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.threads import available_cores
from layoutsel.device.worker_machines import Machines
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.dividing import divide
from layoutsel.exits.division import ExitDivision
from layoutsel.exits.network import ExitNetwork
from layoutsel.planning.plan import Plan
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

UNIT = "cpu"
"""Unit of the workers: all units of the host run on its threads."""
_SWITCHES = 200
"""Number of measured switches from one thread to another and back."""
_PROBE_S = 0.4
"""Duration of one measurement of the slow-down, seconds."""
_LIMIT_S = 10.0
"""Time limit of one run while measuring, seconds."""


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


def priced(network: ExitNetwork, **options: Any) -> PricedExits:
    """Plan a network for every number of threads, and price its stages.

    Nothing is compiled; :func:`measured` adds the costs of switching between workers.

    Parameters
    ----------
    network
        A multi-exit network.
    **options
        Options of :func:`layoutsel.plan` except `threads`.

    Raises
    ------
    LayoutselError
        If the network cannot be planned.
    """
    cores = len(available_cores())
    workers = host_workers(cores)
    scored = network.scored()
    counts = sorted({kind.threads for kind in workers})
    plans = {count: layoutsel.plan(scored, threads=count, **options) for count in counts}
    first = plans[counts[0]]
    division = divide(first.reads, first.results, len(network.names))
    times = {count: _times_us(plan) for count, plan in plans.items()}
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
    )
    return PricedExits(plans=plans, division=division, costs=costs)


def _times_us(plan: Plan) -> dict[SubgraphId, float]:
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


def measured(costs: ExitCosts, compiled: CompiledModel) -> ExitCosts:
    """Add the measured costs of switching between workers, and of working side by side.

    It takes about two seconds. A hand-over is charged with one and a half switches to another
    thread and back: a request goes to its workers, a tap from one to the other, and the answer back
    to the caller.

    Parameters
    ----------
    costs
        Costs by the cost model.
    compiled
        The network in stages, as :func:`layoutsel.exits.building.compiled_for` makes it.
    """
    pairs = [
        pair
        for pair in itertools.permutations(costs.workers, 2)
        if sum(kind.cores for kind in pair) <= costs.cores
    ]
    if not pairs:
        return costs
    switch_us, slowdown = 0.0, {}
    for pair in pairs:
        cores = list(available_cores())
        own = cores[: pair[0].cores], cores[pair[0].cores :][: pair[1].cores]
        with (
            compiled.worker(threads=pair[0].threads, cores=own[0], limit_s=_LIMIT_S) as first,
            compiled.worker(threads=pair[1].threads, cores=own[1], limit_s=_LIMIT_S) as second,
        ):
            switch_us = max(switch_us, _switch_us(second))
            slowdown[f"{pair[0].name}|{pair[1].name}"] = _slowdown(compiled, first, second)
    handed = (1.5 * switch_us,) * len(costs.needs)
    return replace(
        costs,
        handover_us={f"{one.name}>{other.name}": handed for one, other in pairs},
        slowdown=slowdown,
    )


def _switch_us(worker: TensorWorker) -> float:
    """Median time to give a worker nothing to do and wait for it, microseconds."""
    times = []
    for _ in range(_SWITCHES):
        start_s = time.perf_counter()
        worker.submit("nothing", _nothing).result(_LIMIT_S)
        times.append(time.perf_counter() - start_s)
    return 1e6 * statistics.median(times)


def _nothing(_machines: Machines) -> None:
    """Do nothing."""


def _slowdown(compiled: CompiledModel, first: TensorWorker, second: TensorWorker) -> float:
    """Factor on the time of a worker while another one computes the same network, at least 1."""
    inputs = {
        f"input.{index}": to_tensor(value)
        for index, value in enumerate(random_inputs(compiled.inputs))
    }
    chain = first.chain([entry.name for entry in compiled.stages])
    tensors = [inputs[one.name] for one in chain.inputs]

    def repeat(until: threading.Event | None, machines: Machines) -> float:
        """Run for some time, or until told; returns the median time of a run, seconds."""
        run = machines.function(chain, is_watched=False)
        run(*tensors)
        times = []
        end_s = time.monotonic() + _LIMIT_S / 2
        least_s = time.monotonic() + _PROBE_S
        while time.monotonic() < (least_s if until is None else end_s):
            if until is not None and until.is_set():
                break
            start_s = time.perf_counter()
            run(*tensors)
            times.append(time.perf_counter() - start_s)
        return statistics.median(times) if times else 0.0

    alone_s = first.submit("alone", partial(repeat, None)).result(_LIMIT_S)
    stop = threading.Event()
    other = second.submit("beside", partial(repeat, stop))
    try:
        beside_s = first.submit("beside", partial(repeat, None)).result(_LIMIT_S)
    finally:
        stop.set()
    other.result(_LIMIT_S)
    return max(1.0, beside_s / alone_s) if alone_s > 0 else 1.0
