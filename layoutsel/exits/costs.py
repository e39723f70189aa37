"""Costs of trunk and branches on every worker, from the cost model and short measurements."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import layoutsel
from layoutsel.device.entry_points import StageChain
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.threads import available_cores
from layoutsel.device.worker_machines import Machines
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.dividing import divide
from layoutsel.exits.division import ExitDivision
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.switches import median_call_us, median_handover_us
from layoutsel.planning.plan import Plan
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError

UNIT = "cpu"
"""Unit of the workers: all units of the host run on its threads."""
_PROBE_S = 0.4
"""Duration of one measurement of runs, seconds."""
_LIMIT_S = 10.0
"""Time limit of one run while measuring, seconds."""


StageTimes: TypeAlias = Mapping[str, tuple[tuple[float, ...], ...]]
"""Times of the sub-graphs of stages by worker, microseconds."""


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

    Nothing is compiled; :func:`measured` adds the costs of switching between workers.

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


def measured(costs: ExitCosts, compiled: Mapping[int, CompiledModel]) -> ExitCosts:
    """Correct costs by short measurements on this machine, about a second for each worker.

    All times of a worker are multiplied by the measured over the predicted time of the whole
    network. Calls and hand-overs are timed with workers that have nothing else to do.

    Parameters
    ----------
    costs
        Costs by the cost model.
    compiled
        The network in stages by number of threads, as
        :func:`layoutsel.exits.building.compiled_for` makes it. Workers of other numbers of threads
        keep their times.
    """
    present = [kind for kind in costs.workers if kind.threads in compiled]
    alone_s = {}
    for kind in present:
        with _worker(compiled, kind, 0) as worker:
            alone_s[kind.name] = _run_s(compiled[kind.threads], worker)
    slowdown, handover_us, call_us = {}, {}, 0.0
    for kind, other in itertools.permutations(present, 2):
        if kind.cores + other.cores <= costs.cores:
            with (
                _worker(compiled, kind, 0) as first,
                _worker(compiled, other, kind.cores) as second,
            ):
                call_us = max(call_us, median_call_us(first, second))
                handed_us = median_handover_us(first, second)
                beside_s = _beside_s(
                    (compiled[kind.threads], first), (compiled[other.threads], second)
                )
            handover_us[f"{kind.name}>{other.name}"] = (handed_us,) * len(costs.needs)
            slowdown[f"{kind.name}|{other.name}"] = max(1.0, beside_s / alone_s[kind.name])
    return replace(
        costs,
        trunk_us=dict(costs.trunk_us) | _scaled(costs, costs.trunk_us, alone_s),
        branch_us=dict(costs.branch_us) | _scaled(costs, costs.branch_us, alone_s),
        handover_us=handover_us,
        slowdown=slowdown,
        call_us=call_us,
    )


def _scaled(
    costs: ExitCosts, times: StageTimes, alone_s: Mapping[str, float]
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Multiply the times of each measured worker by measured over predicted time."""
    found = {}
    for name, seconds in alone_s.items():
        every = (*costs.trunk_us[name], *costs.branch_us[name])
        factor = 1e6 * seconds / max(sum(map(sum, every)), 1e-9)
        found[name] = tuple(tuple(factor * us for us in stage) for stage in times[name])
    return found


def _worker(compiled: Mapping[int, CompiledModel], kind: WorkerKind, after: int) -> TensorWorker:
    """Make a worker on the cores that follow the first `after` ones."""
    cores = available_cores()[after : after + kind.cores]
    return compiled[kind.threads].worker(threads=kind.threads, cores=cores, limit_s=_LIMIT_S)


def _run_s(compiled: CompiledModel, worker: TensorWorker) -> float:
    """Median time of a run of the whole network on a worker, seconds."""
    return float(worker.submit("run", partial(_repeat, compiled, None)).result(2 * _LIMIT_S))


def _beside_s(
    first: tuple[CompiledModel, TensorWorker], second: tuple[CompiledModel, TensorWorker]
) -> float:
    """Median time of a run on the first worker while the second one computes, seconds."""
    stop = threading.Event()
    model, worker = second
    other = worker.submit("run beside", partial(_repeat, model, stop))
    try:
        return _run_s(*first)
    finally:
        stop.set()
        other.result(2 * _LIMIT_S)


def _repeat(compiled: CompiledModel, until: threading.Event | None, machines: Machines) -> float:
    """Run the whole network for some time or until told, and return the median time, seconds."""
    chain = StageChain.of(compiled.stages, range(len(compiled.stages)))
    named = {f"input.{n}": value for n, value in enumerate(random_inputs(compiled.inputs))}
    tensors = [to_tensor(named[one.name]) for one in chain.inputs]
    run = machines.function(chain, is_watched=False)
    run(*tensors)  # prepares the primitives
    times: list[float] = []
    end_s = time.monotonic() + (_PROBE_S if until is None else _LIMIT_S / 2)
    while not times or (time.monotonic() < end_s and not (until and until.is_set())):
        start_s = time.perf_counter()
        run(*tensors)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)
