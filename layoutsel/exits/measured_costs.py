"""Costs of an exit network by requests to it on this machine, as its users make them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.optimize import nnls

from layoutsel.device.entry_points import StageChain
from layoutsel.exits.arrangement import Arrangement, ExitCosts, WorkerKind
from layoutsel.exits.corun import corun_slowdown
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.policy import Policy
from layoutsel.exits.simulate import BRANCH, TRUNK, ExitSimulator
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

_PROBE_S = 0.4
"""Duration of one measurement, seconds."""
_LIMIT_S = 10.0
"""Time limit of one run while measuring, seconds."""
_FEWEST = 3
"""Least number of turns of each request."""
_RUNS = 8
"""Number of requests in one turn; the first does not count, as others have used the caches."""
_TRUST = 1e-3
"""Weight of the cost model's proportions between stages against the measured times."""
Name = TypeVar("Name", bound=Hashable)
"""Name of a run."""
Stages = tuple[tuple[float, ...], ...]
"""Times of the sub-graphs of stages, microseconds."""


class AskedExit(NamedTuple):
    """A request of which one exit alone is sure."""

    arrangement: Arrangement
    """Workers."""
    exit: int
    """The exit that answers."""


class _OnOne(NamedTuple):
    """Costs of requests on one worker, microseconds."""

    request_us: float
    """Time of a request without its stages."""
    trunk_us: Stages
    """Times of the trunk's segments."""
    branch_us: Stages
    """Times of the branches."""


class _Late(NamedTuple):
    """Further costs of requests to two workers, microseconds."""

    call_us: float
    """Time of the call and of the answer's way back."""
    handover_us: float
    """Time from the end of a segment of the trunk to the start of its branch."""


def measured(costs: ExitCosts, compiled: Mapping[int, CompiledModel]) -> ExitCosts:
    """Replace costs by those of requests on this machine, about a second for each worker.

    Requests to single workers are timed with different exits on, and with each of them answering,
    in turns. Their differences are the times of the stages, as they run after one another. The
    cost model only divides each stage's time among its sub-graphs. Requests to two workers, which
    slow each other down by a measured factor, yield the times of their call and of a hand-over.

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
    alone = {
        threads: _on_one(costs, next(k for k in present if k.threads == threads), compiled[threads])
        for threads in dict.fromkeys(kind.threads for kind in present)
    }
    pairs = [
        (kind, other)
        for kind, other in itertools.permutations(present, 2)
        if kind.cores + other.cores <= costs.cores
    ]
    found = replace(
        costs,
        trunk_us=dict(costs.trunk_us) | {k.name: alone[k.threads].trunk_us for k in present},
        branch_us=dict(costs.branch_us) | {k.name: alone[k.threads].branch_us for k in present},
        request_us=statistics.fmean(one.request_us for one in alone.values()),
        start_us=0.0,  # part of the stages' times
        call_us=0.0,
        handover_us={},
    )
    # Pairs of equal workers have equal costs.
    distinct = {(kind.threads, other.threads): (kind, other) for kind, other in pairs}
    slower = {key: corun_slowdown(compiled, *pair) for key, pair in distinct.items()}
    found = replace(
        found,
        slowdown={f"{k.name}|{other.name}": slower[k.threads, other.threads] for k, other in pairs},
    )
    late = {
        key: _late(found, kind, other, compiled[kind.threads])
        for key, (kind, other) in distinct.items()
    }
    return replace(
        found,
        call_us=statistics.fmean(one.call_us for one in late.values()) if late else 0.0,
        handover_us={
            f"{kind.name}>{other.name}": (late[kind.threads, other.threads].handover_us,)
            * len(costs.needs)
            for kind, other in pairs
        },
    )


def _on_one(costs: ExitCosts, kind: WorkerKind, compiled: CompiledModel) -> _OnOne:
    """Time requests to one worker, and divide their times among the stages."""
    asked = list(requests_to(kind.name, costs))
    with _model(costs, compiled, dict.fromkeys(one.arrangement for one in asked)) as model:
        inputs = random_inputs(compiled.inputs)
        runs: dict[AskedExit | None, Callable[[], object]] = {
            one: partial(_ask, model, inputs, one) for one in asked
        }
        # The shortest of the requests is the least disturbed by other work.
        short = min(asked, key=lambda one: sum(_stages_of(one, costs)))
        runs[None] = _stages_alone(compiled, kind.threads, inputs, _names_of(short, costs))
        times_us = _medians_us(runs)
    request_us = max(0.0, times_us[short] - times_us[None])
    left_us = {one: times_us[one] - request_us for one in asked}
    return _OnOne(request_us, *stage_times(costs, kind.name, left_us))


def stage_times(
    costs: ExitCosts, worker: str, left_us: Mapping[AskedExit, float]
) -> tuple[Stages, Stages]:
    """Divide times of requests to one worker, without the request itself, among its stages.

    They are the least-squares solution. Where the requests do not tell stages apart, it keeps the
    proportions of `costs`, as it does among the sub-graphs of a stage.

    Parameters
    ----------
    costs
        Costs by the cost model.
    worker
        Worker of all stages.
    left_us
        Measured times of requests, microseconds.

    Returns
    -------
    tuple
        Times of the trunk's segments and of the branches.
    """
    stages = *costs.trunk_us[worker], *costs.branch_us[worker]
    predicted_us = np.array([sum(stage) for stage in stages])
    rows = np.array([_stages_of(one, costs) for one in left_us]) * predicted_us
    times_us = np.array(list(left_us.values()))
    scale = times_us.sum() / max(rows.sum(), 1e-9)
    prior = np.diag(_TRUST * predicted_us)
    factors, _ = nnls(
        np.concatenate([rows, prior]), np.concatenate([times_us, scale * prior.sum(axis=0)])
    )
    scaled = tuple(
        tuple(float(factor) * us for us in stage)
        for factor, stage in zip(factors, stages, strict=True)
    )
    count = len(costs.needs) + 1
    return scaled[:count], scaled[count:]


def requests_to(worker: str, costs: ExitCosts) -> Iterator[AskedExit]:
    """Yield requests to one worker that differ in their stages: few exits on, and all of them."""
    last = len(costs.needs)
    seen = set()
    for exits in ((), *((e,) for e in range(last)), range(last)):
        arrangement = _with(worker, costs, exits)
        for exit_ in (*exits, last):
            one = AskedExit(arrangement, exit_)
            stages = _stages_of(one, costs)
            if stages not in seen:
                seen.add(stages)
                yield one


def _with(worker: str, costs: ExitCosts, exits: Sequence[int]) -> Arrangement:
    """Arrangement on one worker with some exits on, and those that they need."""
    on = set(exits)
    for exit_ in reversed(range(len(costs.needs))):
        if exit_ in on:
            on |= {*costs.needs[exit_]}
    branches = (worker if exit_ in on else None for exit_ in range(len(costs.needs)))
    return Arrangement(trunk=worker, branches=tuple(branches))


def _stages_of(asked: AskedExit, costs: ExitCosts) -> tuple[bool, ...]:
    """Stages that a request to one worker runs: segments of the trunk, then branches."""
    trunk = (index <= asked.exit for index in range(len(costs.needs) + 1))
    branches = (
        index <= asked.exit and worker is not None
        for index, worker in enumerate(asked.arrangement.branches)
    )
    return (*trunk, *branches)


def _names_of(asked: AskedExit, costs: ExitCosts) -> set[str]:
    """Names of the stages that a request to one worker runs."""
    last = len(costs.needs)
    names = [f"{TRUNK}{n}" for n in range(last + 1)] + [f"{BRANCH}{n}" for n in range(last)]
    return {name for name, runs in zip(names, _stages_of(asked, costs), strict=True) if runs}


def _model(
    costs: ExitCosts, compiled: CompiledModel, arrangements: Mapping[Arrangement, None]
) -> ExitModel:
    """Model with some arrangements; its own thresholds play no part."""
    first, *others = arrangements
    exits = [str(number) for number in range(len(costs.needs) + 1)]
    policy = Policy(score="max_prob", thresholds=(None,) * len(exits))
    return ExitModel(
        compiled,
        exits,
        first,
        policy,
        workers=costs.workers,
        limit_s=_LIMIT_S,
        others=others,
    )


def _ask(model: ExitModel, inputs: Sequence[np.ndarray], asked: AskedExit) -> None:
    sure = {asked.exit} - {len(model.exits) - 1}
    model.forced(sure, inputs, asked.arrangement)


def _stages_alone(
    compiled: CompiledModel, threads: int, inputs: Sequence[np.ndarray], names: Collection[str]
) -> Callable[[], object]:
    """Function that runs some stages, without a request."""
    caller = compiled.caller(threads=threads)
    numbers = [n for n, one in enumerate(compiled.stages) if one.name in names]
    chain = StageChain.of(compiled.stages, numbers)
    named = {f"input.{n}": value for n, value in enumerate(inputs)}
    tensors = [to_tensor(named[one.name]) for one in chain.inputs]
    return partial(caller.run, caller.function(chain), *tensors)


def _medians_us(runs: Mapping[Name, Callable[[], object]]) -> dict[Name, float]:
    """Median times of runs in turns, microseconds."""
    times: dict[Name, list[float]] = {name: [] for name in runs}
    end_s = time.monotonic() + _PROBE_S
    for turn in itertools.count():
        if turn >= _FEWEST and time.monotonic() > end_s:
            break
        for name, run in runs.items():
            taken_s = [_once_s(run) for _ in range(_RUNS)]
            times[name] += taken_s[1:]
    return {name: 1e6 * statistics.median(some) for name, some in times.items()}


def _once_s(run: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s


def _late(costs: ExitCosts, kind: WorkerKind, other: WorkerKind, compiled: CompiledModel) -> _Late:
    """Compare requests to a trunk and to branches on another worker with their prediction.

    The final exit, on the trunk's worker, is late by the call; the branches by a hand-over as well.
    """
    arrangement = Arrangement(trunk=kind.name, branches=(other.name,) * len(costs.needs))
    inputs = random_inputs(compiled.inputs)
    with _model(costs, compiled, {arrangement: None}) as model:
        exits = range(len(model.exits))
        times_us = _medians_us(
            {e: partial(_ask, model, inputs, AskedExit(arrangement, e)) for e in exits}
        )
    known_us = ExitSimulator(costs).known_us(arrangement)
    *branches_us, final_us = (times_us[e] - float(known_us[e]) for e in exits)
    call_us = max(0.0, final_us)
    return _Late(call_us, max(0.0, statistics.fmean(branches_us) - call_us))
