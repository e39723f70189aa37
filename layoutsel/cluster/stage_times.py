"""Times of compiled stages on this machine, each alone, without the time of its call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.placed import priced_distributions
from layoutsel.cluster.problem import ClassCosts
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.loading import load
from layoutsel.runtime.samples import random_inputs
from tvm_passes.errors import LayoutselError

_ROUNDS, _RUNS = 5, 20
"""Number of rounds, and of timed runs of each stage in a round."""
_LIMIT_S = 60.0
"""Limit of a run, seconds."""


def stage_times(
    model: CompiledModel, stages: Iterable[str], *, threads: int, call_us: float = 0.0
) -> dict[str, tuple[float, float]]:
    """Time stages of a compiled model, many runs after each other.

    Parameters
    ----------
    model
        Compiled model.
    stages
        Names of the stages.
    threads
        Number of threads.
    call_us
        Time that such a call takes by itself, microseconds; it is left out.

    Returns
    -------
    dict
        Median time and half the interquartile range by stage, microseconds.
    """
    found: dict[str, list[float]] = {name: [] for name in stages}
    with model.worker(threads=threads, limit_s=_LIMIT_S) as worker:
        inputs = {}
        for name in found:
            read = worker.chain(name).inputs
            arrays = random_inputs(read)
            inputs[name] = dict(zip((one.name for one in read), arrays, strict=True))
            worker.run(name, inputs[name]).result(_LIMIT_S)
        for _ in range(_ROUNDS):
            for name, times in found.items():
                for _ in range(_RUNS):
                    run = worker.run(name, inputs[name])
                    run.result(_LIMIT_S)
                    times.append(1e6 * run.ran_s)
    return {name: _summary(times, call_us) for name, times in found.items()}


def _summary(times: list[float], call_us: float) -> tuple[float, float]:
    low, _, high = quantiles(times)
    return max(median(times) - call_us, 0.0), (high - low) / 2


def with_stage_times(
    known: Distributions, artifacts: Mapping[str, Path], call_us: float
) -> Distributions:
    """Copy a given placement's distribution with measured times of its stages.

    Classes of other machines keep their predicted times.

    Parameters
    ----------
    known
        Distribution of one route.
    artifacts
        Artifacts by class.
    call_us
        Time of a call, microseconds; see :attr:`EngineProfile.bare_us`.

    Raises
    ------
    LayoutselError
        If the distribution lacks the times of its atoms.
    """
    if known.graph is None:
        raise LayoutselError("distributions without times of atoms: plan again")
    machines = {known.classes[node.id]: node.machine for node in known.topology.computing}
    costs = {
        name: cost if machines[name] else _measured(known, name, artifacts[name], call_us)
        for name, cost in known.costs.items()
    }
    (route,) = known.distributions[0].routes
    return priced_distributions(
        known.graph,
        costs,
        known.classes,
        known.plans,
        {atom: segment.node for segment in route.segments for atom in segment.atoms},
        MessageRoutes(known.topology, known.statistics, known.engine),
    )


def _measured(known: Distributions, name: str, artifact: Path, call_us: float) -> ClassCosts:
    cost, threads = known.costs[name], known.plans[name].threads or 1
    found = stage_times(load(artifact), cost.us, threads=threads, call_us=call_us)
    return replace(
        cost,
        us={atom: us for atom, (us, _) in found.items()},
        spread_us={atom: spread_us for atom, (_, spread_us) in found.items()},
        shared_spread=0.0,
    )
