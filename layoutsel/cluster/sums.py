"""Targets that are sums of prices: the solvers of sums, or with limits an integer programme."""

from __future__ import annotations

from dataclasses import replace

from layoutsel.cluster.asked import Asked, TargetAnswer
from layoutsel.cluster.metrics import METRICS, alone
from layoutsel.cluster.programme import least_sum, missing
from layoutsel.cluster.segments import shown
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import solve


def least(asked: Asked, problem: PlanningProblem, share: float = 0.5) -> TargetAnswer:
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
    raise ProblemError(nothing_fits(asked, is_proven=found.is_infeasible))


def nothing_fits(asked: Asked, *, is_proven: bool) -> str:
    """Describe what keeps every placement from being used."""
    bare = Asked(asked.predictor, replace(asked.target, limits={}), asked.deadline)
    fitting = least_sum(bare.cluster, bare.cluster.problem, time_limit_s=2.0)
    if fitting.placement is None or bare.broken(alone(fitting.placement)):
        return f"the network does not fit: {missing(bare.cluster, time_limit_s=5.0)}"
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
