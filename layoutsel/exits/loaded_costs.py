"""Times of a multi-exit network under a load, from those on an idle host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from layoutsel.cost.model import FREE
from layoutsel.cost.slowdown import ESTIMATE, LoadedRun
from layoutsel.device.core_load import CoreLoad
from layoutsel.exits.arrangement import ExitCosts, WorkerKind
from layoutsel.exits.load_table import CostsAt


def loaded_costs(costs: ExitCosts) -> CostsAt:
    """Estimate costs under loads, which are the argument of the result.

    Parameters
    ----------
    costs
        Times on an idle host.
    """
    return partial(_under, costs)


def _under(costs: ExitCosts, load: CoreLoad) -> ExitCosts:
    """Slow each worker down by the other work on its cores.

    Workers have the least busy cores, but the second of two equal ones has the busiest. Where two
    workers would share cores, the smaller one has the next ones while the other computes.
    """
    kinds = {kind.name: kind for kind in costs.workers}
    seconds = {one for n, one in enumerate(costs.workers) if _like(one, costs.workers[:n])}
    cores = {
        name: range(costs.cores)[-kind.cores :] if kind in seconds else range(kind.cores)
        for name, kind in kinds.items()
    }
    alone = {name: _slowdown(load, kinds[name], held) for name, held in cores.items()}
    beside = {}
    for one, other in itertools.permutations(kinds, 2):
        shares = set(cores[one]) & set(cores[other])
        together = kinds[one].cores + kinds[other].cores
        if shares and together <= costs.cores and kinds[one].cores < kinds[other].cores:
            left = range(kinds[other].cores, together)
            factor = _slowdown(load, kinds[one], left) / alone[one]
            pair = f"{one}|{other}"
            beside[pair] = factor * costs.slowdown.get(pair, 1.0)
    return replace(
        costs,
        trunk_us={name: _scaled(of, alone[name]) for name, of in costs.trunk_us.items()},
        branch_us={name: _scaled(of, alone[name]) for name, of in costs.branch_us.items()},
        slowdown=dict(costs.slowdown) | beside,
    )


def _like(kind: WorkerKind, others: Sequence[WorkerKind]) -> bool:
    return any((one.unit, one.threads) == (kind.unit, kind.threads) for one in others)


def _slowdown(load: CoreLoad, kind: WorkerKind, ranks: range) -> float:
    """Estimated slowdown on cores, by their rank from the least busy one."""
    ranked = sorted(range(len(load.busy)), key=load.busy.__getitem__)
    cores = tuple(ranked[rank] for rank in ranks)
    run = LoadedRun(cost=FREE, threads=kind.threads, cores=cores, load=load)
    return float(ESTIMATE.factors([run])[0][0])


def _scaled(stages: tuple[tuple[float, ...], ...], factor: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(factor * us for us in stage) for stage in stages)
