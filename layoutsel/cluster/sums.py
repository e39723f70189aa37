"""Targets that are sums of prices: the solvers of sums, or with limits an integer programme."""

from __future__ import annotations

from dataclasses import replace

from layoutsel.cluster.asked import Asked, TargetAnswer
from layoutsel.cluster.metrics import LATENCY, METRICS, alone
from layoutsel.cluster.missing import missing
from layoutsel.cluster.programme import Limited, least_sum
from layoutsel.cluster.segments import shown
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import solve


class UnkeptLimits(ProblemError):
    """No placement was found that keeps the limits and fits the memories.

    Parameters
    ----------
    is_proven
        True if there is none.
    """

    def __init__(self, *, is_proven: bool) -> None:
        super().__init__("no placement was found that keeps the limits and fits the memories")
        self.is_proven = is_proven


def least(asked: Asked, problem: PlanningProblem, share: float = 0.5) -> TargetAnswer:
    """Find the placement with the least sum of prices, with the bound in the prices' unit.

    Raises
    ------
    UnkeptLimits
        If no placement was found.
    """
    solution = solve(problem, time_limit_s=asked.left_s(share))
    mix = alone(asked.cluster.placement(solution.decisions))
    if not asked.broken(mix):
        return TargetAnswer(mix=mix, bound=solution.bound_us, solver=solution.solver)
    found = placed(asked, problem, share)
    if asked.limits().load_us is not None:
        # Mixes may keep a throughput that none of their placements has.
        mixed = least_sum(
            asked.cluster,
            problem,
            asked.limits(),
            is_mixed=True,
            time_limit_s=asked.left_s(share),
        )
        found = replace(mixed, placement=found.placement)
    if found.placement is None or asked.broken(alone(found.placement)):
        raise UnkeptLimits(is_proven=found.is_infeasible)
    bound = max(found.bound, solution.bound_us)
    return TargetAnswer(mix=alone(found.placement), bound=bound, solver="integer")


def placed(
    asked: Asked,
    problem: PlanningProblem,
    share: float,
    *,
    is_bottleneck: bool = False,
    gap: float = 0.0,
) -> Limited:
    """Find a placement within the limits, by an integer programme; its bound holds for all.

    The programme knows no waiting. If the placement exceeds a limit of latency by that, another one
    is found whose sum of times is within the limit.
    """

    def found(*, is_in_turn: bool) -> Limited:
        return least_sum(
            asked.cluster,
            problem,
            asked.limits(is_in_turn=is_in_turn),
            is_bottleneck=is_bottleneck,
            time_limit_s=asked.left_s(share),
            gap=gap,
        )

    first = found(is_in_turn=False)
    if LATENCY not in asked.target.limits or first.placement is None:
        return first
    if not asked.broken(alone(first.placement)):
        return first
    return replace(first, placement=found(is_in_turn=True).placement)


def nothing_fits(asked: Asked, *, is_proven: bool) -> str:
    """Describe what keeps every placement from being used."""
    bare = Asked(asked.predictor, replace(asked.target, limits={}), asked.deadline)
    fitting = least_sum(bare.cluster, bare.cluster.problem, time_limit_s=2.0)
    if fitting.placement is None or bare.broken(alone(fitting.placement)):
        return f"the network does not fit: {missing(bare.cluster, time_limit_s=5.0)}"
    if not asked.target.limits:
        return (
            f"target {asked.target.name!r}: no placement that fits the memories was found within "
            f"its time limit, but there is one: allow more time"
        )
    limits = ", ".join(
        f"{name} {'of at least' if METRICS[name].maximised else 'of at most'} "
        f"{shown(limit, METRICS[name].unit)}"
        for name, limit in asked.target.limits.items()
    )
    how = "no placement keeps" if is_proven else "no placement was found in time that keeps"
    best = {
        name: METRICS[name].value(bare.predictor, alone(fitting.placement))
        for name in asked.target.limits
    }
    known = ", ".join(f"{name} {shown(value, METRICS[name].unit)}" for name, value in best.items())
    return (
        f"target {asked.target.name!r}: {how} the limits: {limits}. The placement with the least "
        f"sum of times has {known}"
    )
