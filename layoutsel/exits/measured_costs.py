"""Costs of an exit network by requests to it on this machine, as its users make them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from layoutsel.device.entry_points import StageChain
from layoutsel.exits.arrangement import Arrangement, ExitCosts, WorkerKind
from layoutsel.exits.corun import corun_slowdown
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.policy import Policy
from layoutsel.exits.simulate import ExitSimulator
from layoutsel.exits.stage_times import AskedExit, requests_to, stage_times, stages_run
from layoutsel.exits.trunk_here import pays
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs

_PROBE_S = 0.4
"""Duration of one measurement, seconds."""
_LIMIT_S = 10.0
"""Time limit of one run while measuring, seconds."""
_FEWEST = 3
"""Least number of turns."""
_RUNS = 64
"""Largest number of runs of each request in a turn; two of requests that take milliseconds."""
_WARM_UP = 0.25
"""Share of a turn's runs that do not count, at least one, as others have used the caches."""
_TURN_S = 0.05
"""Intended duration of a turn, seconds."""
_MOST_OVER_MEDIAN = 1.5
"""Largest mean over the median: a single pause of the system may take longer than all runs."""
Name = TypeVar("Name", bound=Hashable)
"""Name of a run."""


class OnOne(NamedTuple):
    """Times of requests to one worker, microseconds."""

    worker: str
    """Name of the worker."""
    times_us: tuple[tuple[AskedExit, float], ...]
    """Requests with their times."""
    request_us: float
    """Time of a request without its stages."""
    mean_over_median: float
    """Mean time of a request over its median."""


class Late(NamedTuple):
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
        :func:`layoutsel.exits.exit_code.compiled_for` makes it. Workers of other numbers of threads
        keep their times, and so do those on devices.
    """
    present = [kind for kind in costs.workers if kind.threads in compiled and not kind.device]
    timed = {
        kind.threads: on_one(costs, kind, compiled[kind.threads])
        for kind in {kind.threads: kind for kind in present}.values()
    }
    # The request itself runs on one thread in any case; few threads are the least disturbed.
    request_us = timed[min(timed)].request_us if timed else costs.request_us
    ratios = [one.mean_over_median for one in timed.values()]
    alone = {
        threads: stage_times(
            costs, one.worker, {asked: max(0.0, us - request_us) for asked, us in one.times_us}
        )
        for threads, one in timed.items()
    }
    pairs = [
        (kind, other)
        for kind, other in itertools.permutations(present, 2)
        if kind.cores + other.cores <= costs.cores
    ]
    found = replace(
        costs,
        trunk_us=dict(costs.trunk_us) | {k.name: alone[k.threads][0] for k in present},
        branch_us=dict(costs.branch_us) | {k.name: alone[k.threads][1] for k in present},
        request_us=request_us,
        mean_over_median=statistics.fmean(ratios) if ratios else costs.mean_over_median,
        start_us=0.0,  # part of the stages' times
        call_us=0.0,
        handover_us={},
    )
    # Pairs of equal workers have equal costs.
    distinct = {(kind.threads, other.threads): (kind, other) for kind, other in pairs}
    slower = {
        key: corun_slowdown(kind, compiled[kind.threads], other, compiled[other.threads])
        for key, (kind, other) in distinct.items()
    }
    found = replace(
        found,
        slowdown={f"{k.name}|{other.name}": slower[k.threads, other.threads] for k, other in pairs},
    )
    late = {
        key: late_requests(found, kind, other, compiled[kind.threads])
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


def on_one(costs: ExitCosts, kind: WorkerKind, compiled: CompiledModel) -> OnOne:
    """Time requests to one worker, and the stages of the shortest of them alone."""
    asked = list(requests_to(kind.name, costs))
    short = min(asked, key=lambda one: len(stages_run(one, costs)))
    with _model(costs, compiled, dict.fromkeys(one.arrangement for one in asked)) as model:
        inputs = random_inputs(compiled.inputs)
        runs: dict[AskedExit | None, Callable[[], object]] = {
            one: _asking(model, inputs, one) for one in asked
        }
        runs[None] = _stages_alone(compiled, kind.threads, inputs, stages_run(short, costs))
        every_us = _times_us(runs)
    times_us = {name: statistics.median(some) for name, some in every_us.items()}
    request_us = max(0.0, times_us[short] - times_us[None])
    mean_us = sum(statistics.fmean(every_us[one]) for one in asked)
    ratio = min(max(mean_us / sum(times_us[one] for one in asked), 1.0), _MOST_OVER_MEDIAN)
    return OnOne(kind.name, tuple((one, times_us[one]) for one in asked), request_us, ratio)


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
        trunk_here=pays(costs),
    )


def _asking(
    model: ExitModel, inputs: Sequence[np.ndarray], asked: AskedExit
) -> Callable[[], ExitAnswer]:
    return model.forcing({asked.exit} - {len(model.exits) - 1}, inputs, asked.arrangement)


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


def _times_us(runs: Mapping[Name, Callable[[], object]]) -> dict[Name, list[float]]:
    """Times of runs in turns, microseconds."""
    times: dict[Name, list[float]] = {name: [] for name in runs}
    once_s = sum(min(_once_s(run), _once_s(run)) for run in runs.values())
    count = max(2, min(_RUNS, int(_TURN_S / once_s)))
    end_s = time.monotonic() + _PROBE_S
    for turn in itertools.count():
        if turn >= _FEWEST and time.monotonic() > end_s:
            break
        for name, run in runs.items():
            taken_s = [_once_s(run) for _ in range(count)]
            times[name] += taken_s[max(1, int(_WARM_UP * count)) :]
    return {name: [1e6 * one for one in some] for name, some in times.items()}


def _once_s(run: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s


def late_requests(
    costs: ExitCosts, kind: WorkerKind, other: WorkerKind, compiled: CompiledModel
) -> Late:
    """Compare requests to a trunk and to branches on another worker with their prediction.

    The final exit, on the trunk's worker, is late by the call; the branches by a hand-over as well.
    """
    arrangement = Arrangement(trunk=kind.name, branches=(other.name,) * len(costs.needs))
    inputs = random_inputs(compiled.inputs)
    with _model(costs, compiled, {arrangement: None}) as model:
        exits = range(len(model.exits))
        every_us = _times_us({e: _asking(model, inputs, AskedExit(arrangement, e)) for e in exits})
    times_us = {e: statistics.median(some) for e, some in every_us.items()}
    known_us = ExitSimulator(costs).known_us(arrangement)
    *branches_us, final_us = (times_us[e] - float(known_us[e]) for e in exits)
    call_us = max(0.0, final_us)
    return Late(call_us, max(0.0, statistics.fmean(branches_us) - call_us))
