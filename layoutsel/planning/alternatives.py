"""Plans worth measuring: the best few that differ notably, and baselines of a single decision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from typing import TypeVar

from layoutsel.cost.place import PLAIN
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph, ProblemError
from layoutsel.planning.solve import solve
from layoutsel.planning.strategies import choose
from tvm_passes.decision import DIRECT, Decision, SubgraphId

T = TypeVar("T")

_SLOWER = 1.15
"""Factor on the costs of one unit or layout that makes up for an underestimate."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A plan to compare with, named by the way of its choice."""

    name: str
    """Name such as ``onednn:NHWC everywhere`` or ``only onednn``."""
    decisions: Mapping[SubgraphId, Decision]
    """Decision of each sub-graph."""
    cost_us: float
    """Predicted cost, microseconds."""


def single_plans(problem: PlanningProblem) -> tuple[Alternative, ...]:
    """Make a plan for each distinct decision: all sub-graphs for which it is legal take it.

    Decisions have the algorithm ``direct``, as any other serves a few sub-graphs only. A sub-graph
    without the decision takes the same unit and precision in the plain layout, else the unit's
    cheapest candidate, else the cheapest one.

    Returns
    -------
    tuple of Alternative
        Distinct plans in order of predicted cost; equal ones have the first name.
    """
    offered = {option.decision for node in problem.nodes for option in node.options}
    direct = {replace(decision, algorithm=DIRECT) for decision in offered}
    decisions = sorted(direct & offered or offered)
    plans = (
        (f"{decision} everywhere", {n.id: _nearest(n, decision) for n in problem.nodes})
        for decision in decisions
    )
    return _distinct(problem, plans)


def unit_plans(problem: PlanningProblem, *, time_limit_s: float = 10.0) -> tuple[Alternative, ...]:
    """Find the best plan on each unit; other units compute only what the unit cannot.

    The predicted best comes first. Each plan takes up to `time_limit_s` seconds.
    """
    return _distinct(problem, _by_unit(problem, time_limit_s))


def precision_plans(
    problem: PlanningProblem, *, time_limit_s: float = 10.0
) -> tuple[Alternative, ...]:
    """Find the best plan in each precision; sub-graphs without candidates in it take others.

    The predicted best comes first. Each plan takes up to `time_limit_s` seconds.
    """
    admitted = {precision: has_decision(precision=precision) for precision in problem.precisions}
    return _distinct(
        problem,
        (
            (f"only {precision}", best_with(problem, keep, time_limit_s=time_limit_s))
            for precision, keep in admitted.items()
        ),
    )


def top_plans(
    problem: PlanningProblem, k: int, *, time_limit_s: float = 10.0
) -> tuple[Alternative, ...]:
    """Find up to `k` different good plans, the predicted best first.

    The k cheapest plans would differ only in one or two unimportant sub-graphs. These plans differ
    in an assumption: the joint optimum; optima with boundaries at twice and half their price, or
    with one unit or layout slower than predicted; the unit by score; each unit alone; each layout
    alone. If these are too few, the costliest sub-graphs are forced to other decisions, one by one.

    Raises
    ------
    ProblemError
        If `k` is below 1.
    """
    if k < 1:
        raise ProblemError(f"cannot give {k} plans; expected at least 1")
    deadline = time.monotonic() + time_limit_s
    best = solve(problem, time_limit_s=time_limit_s / 4).decisions
    ways = _in_time(_by_belief(problem, time_limit_s / 4), deadline)
    plans = _distinct(problem, chain([("joint", best)], ways))[:k]
    ways = _in_time(_by_force(problem, best, time_limit_s / 4), deadline)
    named = chain(((plan.name, plan.decisions) for plan in plans), ways)
    return _distinct(problem, named, most=k)


def best_with(
    problem: PlanningProblem,
    keep: Callable[[PricedSubgraph, Option], bool],
    *,
    time_limit_s: float = 10.0,
) -> dict[SubgraphId, Decision]:
    """Find the plan with the least sum of costs from candidates that `keep` admits.

    A sub-graph without such a candidate may take any; see :func:`narrowed`.
    """
    return dict(solve(narrowed(problem, keep), time_limit_s=time_limit_s).decisions)


def narrowed(
    problem: PlanningProblem, keep: Callable[[PricedSubgraph, Option], bool]
) -> PlanningProblem:
    """Copy the problem with only the candidates that `keep` admits.

    A sub-graph without such a candidate keeps all.
    """
    able = {node.id: any(keep(node, option) for option in node.options) for node in problem.nodes}
    return problem.restrict(lambda node, option: not able[node.id] or keep(node, option))


def scale_boundaries(problem: PlanningProblem, factor: float) -> PlanningProblem:
    """Copy the problem with every boundary price times `factor`."""
    tensors = tuple(
        replace(
            tensor,
            transform_us={pair: factor * us for pair, us in tensor.transform_us.items()},
            crossing_us={pair: factor * us for pair, us in tensor.crossing_us.items()},
            copy_us={pair: factor * us for pair, us in tensor.copy_us.items()},
        )
        for tensor in problem.tensors
    )
    return replace(problem, tensors=tensors)


def _nearest(node: PricedSubgraph, decision: Decision) -> Decision:
    def distance(option: Option) -> tuple[bool, bool, bool, bool, float]:
        mine = option.decision
        return (
            mine != decision,
            mine.unit != decision.unit,
            mine.precision != decision.precision,
            mine.layout != PLAIN,
            option.cost_us,
        )

    nearest = min(node.options, key=distance)
    if nearest.decision.unit == decision.unit:
        return nearest.decision
    return min(node.options, key=lambda option: option.cost_us).decision


def _by_belief(
    problem: PlanningProblem, time_limit_s: float
) -> Iterator[tuple[str, Mapping[SubgraphId, Decision]]]:
    yield "score", choose(problem, strategy="score", time_limit_s=2 * time_limit_s).decisions
    for factor in (2.0, 0.5):
        scaled = scale_boundaries(problem, factor)
        yield f"boundaries x{factor:g}", solve(scaled, time_limit_s=time_limit_s).decisions
    for field, values in (("unit", problem.units), ("layout", problem.layouts)):
        for value in values:
            slower = _slow_down(problem, has_decision(**{field: value}))
            yield f"{value} slower", solve(slower, time_limit_s=time_limit_s).decisions
    yield from _by_unit(problem, time_limit_s)
    for layout in problem.layouts:
        yield (
            f"only {layout}",
            best_with(problem, has_decision(layout=layout), time_limit_s=time_limit_s),
        )


def _by_unit(
    problem: PlanningProblem, time_limit_s: float
) -> Iterator[tuple[str, Mapping[SubgraphId, Decision]]]:
    for unit in problem.units:
        yield f"only {unit}", best_with(problem, has_decision(unit=unit), time_limit_s=time_limit_s)


def _by_force(
    problem: PlanningProblem, best: Mapping[SubgraphId, Decision], time_limit_s: float
) -> Iterator[tuple[str, Mapping[SubgraphId, Decision]]]:
    """Find the optima with one other decision forced: the costliest sub-graphs' next best first."""
    costs = problem.cost(best).subgraphs
    others = {
        node.id: sorted(
            (o for o in node.options if o.decision != best[node.id]), key=lambda o: o.cost_us
        )
        for node in problem.nodes
    }
    costliest = sorted(others, key=lambda id_: -costs[id_])
    for rank in range(max(map(len, others.values()), default=0)):
        for id_ in costliest:
            if rank < len(others[id_]):
                decision = others[id_][rank].decision
                pinned = best_with(problem, _is(id_, decision), time_limit_s=time_limit_s)
                yield f"{decision} for {id_}", pinned


def _slow_down(
    problem: PlanningProblem, affected: Callable[[PricedSubgraph, Option], bool]
) -> PlanningProblem:
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(o, cost_us=o.cost_us * (_SLOWER if affected(node, o) else 1.0))
                for o in node.options
            ),
        )
        for node in problem.nodes
    )
    return replace(problem, nodes=nodes)


def _is(id_: SubgraphId, decision: Decision) -> Callable[[PricedSubgraph, Option], bool]:
    return lambda node, option: node.id == id_ and option.decision == decision


def has_decision(**wanted: str) -> Callable[[PricedSubgraph, Option], bool]:
    """Make a function for :func:`narrowed` that admits decisions with these values of fields."""
    return lambda _, option: all(
        getattr(option.decision, name) == value for name, value in wanted.items()
    )


def _in_time(ways: Iterator[T], deadline: float) -> Iterator[T]:
    return takewhile(lambda _: time.monotonic() < deadline, ways)


def _distinct(
    problem: PlanningProblem,
    plans: Iterable[tuple[str, Mapping[SubgraphId, Decision]]],
    *,
    most: int | None = None,
) -> tuple[Alternative, ...]:
    """Take the first `most` different ones of `plans`; sort them by predicted cost."""
    seen: dict[tuple[Decision, ...], Alternative] = {}
    for name, decisions in plans:
        key = tuple(decisions[node.id] for node in problem.nodes)
        if key not in seen:
            cost_us = problem.cost(decisions).total_us
            seen[key] = Alternative(name=name, decisions=decisions, cost_us=cost_us)
        if most is not None and len(seen) >= most:
            break
    return tuple(sorted(seen.values(), key=lambda alternative: alternative.cost_us))
