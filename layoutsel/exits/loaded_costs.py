"""Times of a multi-exit network under a load, from those on an idle host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from layoutsel.core.workload import Cost
from layoutsel.cost.slowdown import LEARNED, SLICE_US, LoadedRun, shipped_slowdown
from layoutsel.device.core_load import CoreLoad
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.table_planning import CostsAt

Stages: TypeAlias = tuple[tuple[float, ...], ...]
"""Times of the sub-graphs of stages, microseconds."""


def loaded_costs(costs: ExitCosts, answer: str = "first") -> CostsAt:
    """Predict costs under loads, which are the argument of the result.

    Parameters
    ----------
    costs
        Times on an idle host.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`. In order, a request waits for its own
        branches, whether or not they have their core.
    """
    return partial(_under, costs, answer)


def _under(costs: ExitCosts, answer: str, load: CoreLoad) -> ExitCosts:
    """Slow each worker down by the other work on its cores.

    Workers have the least busy cores, but the second of two equal ones has the busiest. Where two
    workers would share cores, the smaller one has the next ones while the other computes.

    Threads wait for whole time slices: most short requests meet none.
    """
    kinds = {kind.name: kind for kind in costs.workers}
    seconds = {one for n, one in enumerate(costs.workers) if _like(one, costs.workers[:n])}
    cores = {
        name: range(costs.cores)[-kind.cores :] if kind in seconds else range(kind.cores)
        for name, kind in kinds.items()
    }
    alone = {name: _slowed(costs, load, kinds[name], held) for name, held in cores.items()}
    beside = {}
    for one, other in itertools.permutations(kinds, 2):
        shares = set(cores[one]) & set(cores[other])
        together = kinds[one].cores + kinds[other].cores
        if shares and together <= costs.cores and kinds[one].cores < kinds[other].cores:
            left = _slowed(costs, load, kinds[one], range(kinds[other].cores, together))
            pair = f"{one}|{other}"
            factor = left.total_us / max(alone[one].total_us, 1e-9)
            beside[pair] = factor * costs.slowdown.get(pair, 1.0)
    request = _priced([costs.request_us], load, 1, range(1))
    waiting = {
        name: share
        for name, one in alone.items()
        if (share := max(0.0, 1 - _total_us(costs, name) / max(one.total_us, 1e-9)))
    }
    # While one has no core, branches do not run, and the first sure exit does not wait for them.
    spare = {kind.name for kind in seconds if kind.cores == 1 and answer == "first"}
    return replace(
        costs,
        request_us=request[0],
        trunk_us={name: alone[name].trunk_us for name in costs.trunk_us},
        branch_us={
            name: times if name in spare else alone[name].branch_us
            for name, times in costs.branch_us.items()
        },
        slowdown=dict(costs.slowdown) | beside,
        waiting=waiting,
        wait_us=SLICE_US,
        late={name: share for name, share in waiting.items() if name in spare},
    )


def _total_us(costs: ExitCosts, worker: str) -> float:
    return sum(map(sum, (*costs.trunk_us[worker], *costs.branch_us[worker])))


def _like(kind: WorkerKind, others: Sequence[WorkerKind]) -> bool:
    return any((one.unit, one.threads) == (kind.unit, kind.threads) for one in others)


@dataclass(frozen=True)
class _Slowed:
    """Times of the sub-graphs of one worker under a load, microseconds."""

    trunk_us: Stages
    branch_us: Stages

    @property
    def total_us(self) -> float:
        return sum(map(sum, (*self.trunk_us, *self.branch_us)))


def _slowed(costs: ExitCosts, load: CoreLoad, kind: WorkerKind, ranks: range) -> _Slowed:
    """Price every sub-graph on cores, which are given by their rank from the least busy one."""
    parts = costs.trunk_us[kind.name], costs.branch_us[kind.name]
    idle_us = [us for stages in parts for stage in stages for us in stage]
    times = iter(_priced(idle_us, load, kind.threads, ranks))
    trunk, branch = (
        tuple(tuple(itertools.islice(times, len(stage))) for stage in stages) for stages in parts
    )
    return _Slowed(trunk, branch)


def _priced(idle_us: Sequence[float], load: CoreLoad, threads: int, ranks: range) -> list[float]:
    """Times under a load, microseconds, on cores by their rank."""
    ranked = sorted(range(len(load.busy)), key=load.busy.__getitem__)
    cores = tuple(ranked[rank] for rank in ranks)
    runs = [
        LoadedRun(cost=Cost.timed(us, 0.0, LEARNED), threads=threads, cores=cores, load=load)
        for us in idle_us
    ]
    return [cost.us for cost in shipped_slowdown().applied(runs)]
