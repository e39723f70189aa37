"""Targets: one solver for each metric, which finds a mix within limits and proves a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from layoutsel.cluster.energy import UJ, without_power
from layoutsel.cluster.memory import excess, peaks
from layoutsel.cluster.memory_search import dealt, descended
from layoutsel.cluster.metrics import (
    ENERGY,
    HZ,
    LATENCY,
    MEMORY,
    METRICS,
    THROUGHPUT,
    Mix,
    Predictor,
    Share,
    alone,
)
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.programme import Limit, least_peak, least_sum, missing
from layoutsel.cluster.segments import Target
from layoutsel.planning.columns import best_mixture
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import solve

TIME_LIMIT_S = 3.0
"""Default time limit of one target, seconds."""
_SAME = 1e-9
"""Relative difference of equal values."""


@dataclass(frozen=True, kw_only=True)
class TargetAnswer:
    """Best mix found for a target."""

    mix: Mix
    """Placements with their shares of the requests."""
    bound: float
    """Proven bound on the metric of all mixes within the limits, in the metric's unit."""
    solver: str
    """Name of the solver that proved the bound."""


class Asked:
    """A target for one cluster, with the time that is left for it.

    Parameters
    ----------
    predictor
        Metrics of the cluster's mixes.
    target
        Metric to optimise, and limits.
    deadline
        Deadline by :func:`time.monotonic`, seconds.

    Raises
    ------
    ProblemError
        If the target or a limit is unknown, or needs the power of a node that has none.
    """

    def __init__(self, predictor: Predictor, target: Target, deadline: float) -> None:
        check_target(target, predictor.cluster)
        most = target.limits.get(MEMORY)
        if most is not None:
            predictor = Predictor(replace(predictor.cluster, most_bytes=most))
        self.predictor = predictor
        self.target = target
        self.deadline = deadline

    @property
    def cluster(self) -> Cluster:
        """Nodes and network; a limit of memory is part of it."""
        return self.predictor.cluster

    def left_s(self, share: float = 1.0) -> float:
        """Share of the time that is left, seconds."""
        return max(self.deadline - time.monotonic(), 0.02) * share

    def broken(self, mix: Mix) -> str:
        """Describe the first limit that a mix breaks; empty if it keeps all of them."""
        held = peaks(self.cluster, [share.placement for share in mix])
        for node, size in excess(self.cluster, held):
            return f"{size / 1e6:.3g} MB of memory are missing on {node}"
        for name, limit in self.target.limits.items():
            value = METRICS[name].value(self.predictor, mix)
            if not METRICS[name].keeps(value, limit):
                return f"{name} is {value:.4g} {METRICS[name].unit}, its limit {limit:.4g}"
        return ""

    def value(self, mix: Mix) -> float:
        """Value of the target's metric for a mix."""
        return METRICS[self.target.name].value(self.predictor, mix)

    def sums(self) -> list[Limit]:
        """Limits on sums; a latency is at most the sum of all times."""
        problems = {LATENCY: (self.cluster.problem, 1.0), ENERGY: (self.predictor.energy, 1 / UJ)}
        return [
            Limit(problem=problems[name][0], most=limit * problems[name][1])
            for name, limit in self.target.limits.items()
            if name in problems
        ]

    def loads(self) -> float | None:
        """Longest time for which a request may occupy a resource, microseconds; None: any."""
        least = self.target.limits.get(THROUGHPUT)
        return None if least is None else HZ / least


def check_target(target: Target, cluster: Cluster | None = None) -> None:
    """Reject an unknown target, or one that the cluster cannot have.

    Raises
    ------
    ProblemError
        The message names the target, the limit and what is expected.
    """
    for name in (target.name, *target.limits):
        if name not in METRICS:
            raise ProblemError(f"target {name!r}: expected one of {', '.join(METRICS)}")
        lacking = without_power(cluster) if cluster is not None and name == ENERGY else ()
        if lacking:
            raise ProblemError(
                f"target {ENERGY!r}: got no power of the nodes {', '.join(lacking)}; expected "
                f"power_w for each node of the topology"
            )
    for name, limit in target.limits.items():
        if not limit > 0:
            raise ProblemError(f"limit of {name}: got {limit:g}; expected a number above 0")


def answer(asked: Asked) -> TargetAnswer:
    """Find the best mix for a target.

    Raises
    ------
    ProblemError
        If no mix keeps the limits or fits the memories; the message says what is missing where.
    """
    found = SOLVERS[asked.target.name](asked)
    value = METRICS[asked.target.name].value(asked.predictor, found.mix)
    entry = METRICS[asked.target.name]
    if entry.is_better(value, found.bound) and abs(value - found.bound) <= 1e-6 * abs(value):
        found = replace(found, bound=value)  # only rounding contradicts the bound
    return found


def _least(asked: Asked, problem: PlanningProblem, share: float = 0.5) -> TargetAnswer:
    """Find the placement with the least sum of prices, with the bound in the prices' unit."""
    solution = solve(problem, time_limit_s=asked.left_s(share))
    mix = alone(asked.cluster.placement(solution.decisions))
    if not asked.broken(mix):
        return TargetAnswer(mix=mix, bound=solution.bound_us, solver=solution.solver)
    found = least_sum(
        asked.cluster,
        problem,
        asked.sums(),
        most_load_us=asked.loads(),
        time_limit_s=asked.left_s(share),
    )
    bound = max(found.bound, solution.bound_us)
    if found.placement is not None and not asked.broken(alone(found.placement)):
        return TargetAnswer(mix=alone(found.placement), bound=bound, solver="integer")
    raise ProblemError(_nothing_fits(asked, is_proven=found.is_infeasible))


def _nothing_fits(asked: Asked, *, is_proven: bool) -> str:
    """Describe what keeps every placement from being used."""
    bare = Asked(asked.predictor, replace(asked.target, limits={}), asked.deadline)
    fitting = least_sum(bare.cluster, bare.cluster.problem, time_limit_s=2.0)
    if fitting.placement is None or bare.broken(alone(fitting.placement)):
        return f"the network does not fit: {missing(bare.cluster, time_limit_s=5.0)}"
    limits = ", ".join(
        f"{name} {'of at least' if METRICS[name].maximised else 'of at most'} {limit:.4g} "
        f"{METRICS[name].unit}"
        for name, limit in asked.target.limits.items()
    )
    how = "no placement keeps" if is_proven else "no placement was found in time that keeps"
    best = {
        name: METRICS[name].value(bare.predictor, alone(fitting.placement))
        for name in asked.target.limits
    }
    known = ", ".join(f"{name} {value:.4g} {METRICS[name].unit}" for name, value in best.items())
    return (
        f"target {asked.target.name!r}: {how} the limits: {limits}. The placement with the least "
        f"sum of times has {known}"
    )


def _latency(asked: Asked) -> TargetAnswer:
    """Minimise the sum of times, then search for placements whose branches overlap."""
    problem = asked.cluster.problem
    first = _least(asked, problem, 0.4)
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
    found = _least(asked, asked.predictor.energy)
    return replace(found, bound=found.bound * UJ)


def _memory(asked: Asked) -> TargetAnswer:
    """Minimise the largest memory, then the sum of times among the placements that attain it."""
    cluster = asked.cluster
    found = least_peak(cluster, time_limit_s=asked.left_s(0.4))
    starts = [dealt(cluster), *([found.placement] if found.placement is not None else [])]
    until = asked.deadline - asked.left_s(0.6)
    ends = [descended(cluster, one, deadline=until) for one in starts]
    kept = [mix for mix in map(alone, ends) if not asked.broken(mix)]
    kept = kept or [_least(asked, cluster.problem).mix]  # raises and names what is missing
    best = min(kept, key=asked.value)
    peak = asked.value(best)
    within = replace(cluster, most_bytes=peak * (1 + _SAME))
    quick = least_sum(
        within,
        within.problem,
        asked.sums(),
        most_load_us=asked.loads(),
        time_limit_s=asked.left_s(),
        gap=0.01,
    )
    if quick.placement is not None and not asked.broken(alone(quick.placement)):
        best = min((alone(quick.placement), best), key=lambda mix: asked.value(mix) > peak)
    return TargetAnswer(mix=best, bound=min(found.bound, peak), solver="integer")


def _throughput(asked: Asked) -> TargetAnswer:
    """Mix placements in steady state; with limits, each placement keeps those on one request."""
    cluster = asked.cluster
    found = best_mixture(cluster.problem, time_limit_s=asked.left_s(0.6))
    mix = tuple(
        Share(weight=rate / found.throughput, placement=cluster.placement(decisions))
        for rate, decisions in zip(found.rates, found.placements, strict=True)
    )
    bound = found.bound * HZ
    if not asked.broken(mix):
        return TargetAnswer(mix=mix, bound=bound, solver="column generation")
    best = _single_throughput(asked)
    return TargetAnswer(mix=best, bound=bound, solver="column generation")


def _single_throughput(asked: Asked) -> Mix:
    """Find a placement of high throughput within the limits: the least bottleneck."""
    found = least_sum(
        asked.cluster,
        asked.cluster.problem,
        asked.sums(),
        most_load_us=asked.loads(),
        is_bottleneck=True,
        time_limit_s=asked.left_s(),
        gap=0.005,
    )
    if found.placement is not None and not asked.broken(alone(found.placement)):
        return alone(found.placement)
    return _least(asked, asked.cluster.problem).mix


Solver = Callable[[Asked], TargetAnswer]
"""Function that answers a target."""
SOLVERS: Mapping[str, Solver] = {
    LATENCY: _latency,
    THROUGHPUT: _throughput,
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
