"""Targets: one solver for each metric, which finds a mix within limits and proves a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from layoutsel.cluster.asked import Asked, TargetAnswer
from layoutsel.cluster.energy import UJ
from layoutsel.cluster.memory_search import dealt, descended
from layoutsel.cluster.metrics import (
    ENERGY,
    LATENCY,
    MEMORY,
    METRICS,
    THROUGHPUT,
    Mix,
    alone,
)
from layoutsel.cluster.programme import least_peak
from layoutsel.cluster.segments import Target
from layoutsel.cluster.sums import UnkeptLimits, least, nothing_fits, placed
from layoutsel.cluster.throughput_target import most_requests
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem, ProblemError

TIME_LIMIT_S = 3.0
"""Default time limit of one target, seconds."""
_SAME = 1e-9
"""Relative difference of equal values."""


def answer(asked: Asked) -> TargetAnswer:
    """Find the best mix for a target.

    Raises
    ------
    ProblemError
        If no mix keeps the limits or fits the memories; the message says what is missing where.
    """
    try:
        found = _answered(asked)
    except UnkeptLimits as reason:
        raise ProblemError(nothing_fits(asked, is_proven=reason.is_proven)) from reason
    entry = METRICS[asked.target.name]
    return replace(found, bound=entry.certified(asked.value(found.mix), found.bound))


def _answered(asked: Asked) -> TargetAnswer:
    try:
        return SOLVERS[asked.target.name](asked)
    except UnkeptLimits:
        found = next(_attaining(asked), None)
        if found is None:
            raise
        return found


def _attaining(asked: Asked) -> Iterator[TargetAnswer]:
    """Yield mixes that keep the limits because they are the best for one of the limited metrics.

    Integer programmes may miss them: they know no several routes, and no waiting for busy nodes.
    """
    for name in (LATENCY, THROUGHPUT):
        if name in asked.target.limits:
            rest = {one: most for one, most in asked.target.limits.items() if one != name}
            best = _answered(asked.about(Target(name=name, limits=rest), 0.5))
            if not asked.broken(best.mix):
                free = _answered(asked.about(Target(name=asked.target.name, limits=rest)))
                yield replace(free, mix=best.mix)


def _latency(asked: Asked) -> TargetAnswer:
    """Minimise the sum of times, then search for placements whose branches overlap."""
    problem = asked.cluster.problem
    first = least(asked, problem, 0.4)
    if _is_path(problem) or len(asked.cluster.nodes) == 1:
        return first
    decisions = asked.cluster.decisions(first.mix[0].placement)
    found = solve_parallel(problem, decisions, time_limit_s=asked.left_s())
    mix = alone(asked.cluster.placement(found.decisions))
    best = min(
        (one for one in (first.mix, mix) if not asked.broken(one)),
        key=lambda one: METRICS[LATENCY].value(asked.predictor, one),
    )
    return TargetAnswer(mix=best, bound=found.bound_us, solver="schedule search")


def _is_path(problem: PlanningProblem) -> bool:
    """True if each atom reads one tensor, and each tensor has one reader: nothing overlaps."""
    readers = [{use.consumer for use in tensor.uses} for tensor in problem.tensors]
    return len(problem.tensors) == len(problem.nodes) + 1 and all(
        len(one) == 1 and sum(one == other for other in readers) == 1 for one in readers
    )


def _energy(asked: Asked) -> TargetAnswer:
    found = least(asked, asked.predictor.energy)
    return replace(found, bound=found.bound * UJ)


def _memory(asked: Asked) -> TargetAnswer:
    """Minimise the largest memory, then the sum of times among the placements that attain it."""
    cluster = asked.cluster
    found = least_peak(cluster, time_limit_s=asked.left_s(0.4))
    starts = [dealt(cluster), *([found.placement] if found.placement is not None else [])]
    until = asked.deadline - asked.left_s(0.6)
    ends = [descended(cluster, one, deadline=until) for one in starts]
    kept = [mix for mix in map(alone, ends) if not asked.broken(mix)]
    kept = kept or [least(asked, cluster.problem).mix]  # raises if nothing does
    best = min(kept, key=asked.value)
    peak = asked.value(best)
    limits = {**asked.target.limits, MEMORY: peak * (1 + _SAME)}
    within = asked.about(replace(asked.target, limits=limits))
    quick = placed(within, within.cluster.problem, 0.5, gap=0.01)
    if quick.placement is not None and not asked.broken(alone(quick.placement)):
        best = min((alone(quick.placement), best), key=lambda mix: asked.value(mix) > peak)
    return TargetAnswer(mix=best, bound=min(found.bound, peak), solver="integer")


Solver = Callable[[Asked], TargetAnswer]
"""Function that answers a target."""
SOLVERS: Mapping[str, Solver] = {
    LATENCY: _latency,
    THROUGHPUT: most_requests,
    ENERGY: _energy,
    MEMORY: _memory,
}
"""Solvers by target."""


def best_of(asked: Asked, mixes: Sequence[Mix]) -> Mix:
    """Return the best of `mixes` for a target that keeps its limits; the first one leads."""
    entry = METRICS[asked.target.name]
    best, value = mixes[0], entry.value(asked.predictor, mixes[0])
    for mix in mixes[1:]:
        other = entry.value(asked.predictor, mix)
        if entry.is_better(other, value * (1 - _SAME)) and not asked.broken(mix):
            best, value = mix, other
    return best
