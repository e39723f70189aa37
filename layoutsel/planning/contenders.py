"""Contenders of a chosen plan, including the best plans of every stricter set of precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from layoutsel.planning.alternatives import (
    precision_plans,
    single_plans,
    top_plans,
    unit_plans,
)
from layoutsel.planning.problem import PlanningProblem
from tvm_passes.decision import Decision, SubgraphId

TOP_PLANS = 3
"""Number of best plans of a problem, including the chosen one."""
UNIT_PLANS = 1
"""Number of best plans on one unit, as hand-overs between units are the hardest to predict."""
BASELINES = 3
"""Number of best plans of a single decision."""
_EACH_S = 10.0
"""Maximum time to find one of the plans, or the best ones together, seconds."""
_SHARE = 4
"""Time of the best plans together, relative to that of another plan, if time is short."""

_Precisions = Sequence[str]


def contenders(
    problem: PlanningProblem,
    stricter: Sequence[_Precisions] = (),
    *,
    narrowed_alone: bool = False,
    time_limit_s: float = math.inf,
) -> dict[str, Mapping[SubgraphId, Decision]]:
    """Collect distinct plans of `problem` that are worth measuring, by name.

    A looser mode has all contenders of a stricter one as well, so that it is never slower.

    Parameters
    ----------
    problem
        Problem of the chosen plan.
    stricter
        Sets of precisions for which the same plans are made.
    narrowed_alone
        True to omit plans of `problem` itself.
    time_limit_s
        Time limit, seconds.
    """
    plans = _SHARE + len(problem.units) + len(problem.precisions)
    each_s = time_limit_s / (plans * (1 + len(stricter)))
    top_s, each_s = min(_EACH_S, _SHARE * each_s), min(_EACH_S, each_s)
    found: dict[str, Mapping[SubgraphId, Decision]] = {}
    seen: list[dict[SubgraphId, Decision]] = []
    for where, narrowed in narrowings(problem, stricter).items():
        if narrowed_alone and not where:
            continue
        alternatives = [
            *top_plans(narrowed, TOP_PLANS, time_limit_s=top_s),
            *unit_plans(narrowed, time_limit_s=each_s)[:UNIT_PLANS],
            *single_plans(narrowed)[:BASELINES],
            *(precision_plans(narrowed, time_limit_s=each_s) if stricter else ()),
        ]
        for alternative in alternatives:
            if dict(alternative.decisions) not in seen:
                seen.append(dict(alternative.decisions))
                found[f"{alternative.name}{where}"] = alternative.decisions
    return found


def narrowings(
    problem: PlanningProblem, stricter: Sequence[_Precisions]
) -> dict[str, PlanningProblem]:
    """Make the problems of all sets of precisions, by the ending of their plans' names.

    The ending of `problem` itself is empty; that of a stricter set is such as ``in f32``.
    """
    return {"": problem} | {
        f" in {_named(precisions)}": within(problem, precisions) for precisions in stricter
    }


def within(problem: PlanningProblem, precisions: _Precisions) -> PlanningProblem:
    """Copy the problem with only the candidates in these precisions.

    A sub-graph without such a candidate keeps all.
    """
    able = {
        node.id: any(option.decision.precision in precisions for option in node.options)
        for node in problem.nodes
    }
    return problem.restrict(
        lambda node, option: not able[node.id] or option.decision.precision in precisions
    )


def _named(precisions: _Precisions) -> str:
    return " and ".join(precision for precision in precisions if precision != "int8")
