"""The plans that a chosen one is raced with: among them the best of every stricter set of precisions."""

from __future__ import annotations

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
"""Best plans of a problem, the chosen one among them."""
UNIT_PLANS = 1
"""Best plans that stay on one unit: what crossing between units costs is the hardest to predict."""
BASELINES = 3
"""Best single-decision baselines."""

_Precisions = Sequence[str]


def contenders(
    problem: PlanningProblem, stricter: Sequence[_Precisions] = (), *, narrowed_alone: bool = False
) -> dict[str, Mapping[SubgraphId, Decision]]:
    """Plans of `problem` worth measuring, by name, no two equal.

    A looser mode has all the contenders of a stricter one as well: it must not come out slower.

    Parameters
    ----------
    stricter
        Sets of precisions, each of which the same plans are made with.
    narrowed_alone
        If True, the plans of `problem` itself, without regard for stricter sets, are left out.
    """
    found: dict[str, Mapping[SubgraphId, Decision]] = {}
    seen: list[dict[SubgraphId, Decision]] = []
    for where, narrowed in narrowings(problem, stricter).items():
        if narrowed_alone and not where:
            continue
        alternatives = [
            *top_plans(narrowed, TOP_PLANS),
            *unit_plans(narrowed)[:UNIT_PLANS],
            *single_plans(narrowed)[:BASELINES],
            *(precision_plans(narrowed) if stricter else ()),
        ]
        for alternative in alternatives:
            if dict(alternative.decisions) not in seen:
                seen.append(dict(alternative.decisions))
                found[f"{alternative.name}{where}"] = alternative.decisions
    return found


def narrowings(
    problem: PlanningProblem, stricter: Sequence[_Precisions]
) -> dict[str, PlanningProblem]:
    """`problem`, and narrowed to each of the `stricter` sets; by what names of their plans end with."""
    return {"": problem} | {
        f" in {_named(precisions)}": within(problem, precisions) for precisions in stricter
    }


def within(problem: PlanningProblem, precisions: _Precisions) -> PlanningProblem:
    """`problem` with these precisions alone, wherever a sub-graph has a candidate in one of them."""
    able = {
        node.id: any(option.decision.precision in precisions for option in node.options)
        for node in problem.nodes
    }
    return problem.restrict(
        lambda node, option: not able[node.id] or option.decision.precision in precisions
    )


def _named(precisions: _Precisions) -> str:
    return " and ".join(precision for precision in precisions if precision != "int8")
