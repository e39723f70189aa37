"""The plan with the least makespan that a search finds: where branches of a network go while the host has another."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.planning.makespan import Makespan, Schedule, memories_of, schedule
from layoutsel.planning.makespan_bound import lower_bound
from layoutsel.planning.problem import Node, Option, PlanningProblem
from layoutsel.planning.solve import solve
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_SAME_US = 1e-6

Decisions = Mapping[SubgraphId, Decision]


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Decisions with their schedule and certificate."""

    decisions: Decisions
    schedule: Schedule
    bound_us: float
    """No schedule of any plan of the problem is shorter, microseconds."""

    @property
    def makespan(self) -> Makespan:
        """As plans keep it."""
        return Makespan.of(self.schedule, self.bound_us)


def solve_parallel(
    problem: PlanningProblem, first: Decisions, *, time_limit_s: float = 10.0
) -> Parallel:
    """Search for decisions whose list schedule ends early, from `first` on.

    Chains of sub-graphs, between two places where the network branches or joins, take the decisions of whole plans that
    are drawn to one memory or the other, as long as the makespan falls; then single sub-graphs do.
    """
    deadline = time.monotonic() + time_limit_s
    bound_us = lower_bound(problem)
    plans = [first, *_drawn(problem, deadline)]
    best = min((_Found(problem, plan) for plan in plans), key=lambda found: found.us)
    for moves in (_moves_of_chains(problem, plans), _moves_of_each(problem)):
        best = _descend(problem, best, moves, bound_us, deadline)
    return Parallel(decisions=best.decisions, schedule=best.schedule, bound_us=bound_us)


class _Found:
    """A plan with its schedule."""

    def __init__(self, problem: PlanningProblem, decisions: Decisions) -> None:
        self.decisions = dict(decisions)
        self.schedule = schedule(problem, decisions)
        self.us = self.schedule.makespan_us


def _drawn(problem: PlanningProblem, deadline: float) -> Iterator[Decisions]:
    """For each memory the best plan, by the sum, that stays there where it can."""
    for memory in memories_of(problem):
        if time.monotonic() >= deadline:
            return
        left_s = max(deadline - time.monotonic(), 0.1)
        yield solve(_kept_in(problem, memory), time_limit_s=left_s / 4).decisions


def _kept_in(problem: PlanningProblem, memory: str) -> PlanningProblem:
    """The problem with what computes in `memory` alone, wherever there is such a candidate."""
    able = {node.id for node in problem.nodes if any(o.memory == memory for o in node.options)}

    def keep(node: Node, option: Option) -> bool:
        return node.id not in able or option.memory == memory

    return problem.restrict(keep)


def _moves_of_chains(problem: PlanningProblem, plans: Sequence[Decisions]) -> list[Decisions]:
    """A chain as one of `plans` decides it."""
    return [{id_: plan[id_] for id_ in chain} for chain in chains(problem) for plan in plans]


def _moves_of_each(problem: PlanningProblem) -> list[Decisions]:
    """A sub-graph as any of its candidates says."""
    return [{node.id: option.decision} for node in problem.nodes for option in node.options]


def _descend(
    problem: PlanningProblem,
    best: _Found,
    moves: Sequence[Decisions],
    bound_us: float,
    deadline: float,
) -> _Found:
    """Make whatever moves shorten the schedule, until none does."""
    improved = True
    while improved and best.us > bound_us + _SAME_US:
        improved = False
        for move in moves:
            if time.monotonic() >= deadline:
                _LOG.info("no time is left to search for a shorter schedule")
                return best
            changed = {**best.decisions, **move}
            if changed == best.decisions:
                continue
            found = _Found(problem, changed)
            if found.us < best.us - _SAME_US:
                best, improved = found, True
    return best


def chains(problem: PlanningProblem) -> list[list[SubgraphId]]:
    """Maximal chains of sub-graphs, each of which has one consumer, the next, that reads no other; the longest first."""
    before: dict[SubgraphId, set[SubgraphId]] = {node.id: set() for node in problem.nodes}
    behind: dict[SubgraphId, set[SubgraphId]] = {node.id: set() for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if tensor.producer is not None and use.consumer is not None:
                before[use.consumer].add(tensor.producer)
                behind[tensor.producer].add(use.consumer)
    found: dict[SubgraphId, list[SubgraphId]] = {}
    for node in problem.nodes:
        makers = before[node.id]
        maker = next(iter(makers)) if len(makers) == 1 else None
        if maker is not None and len(behind[maker]) == 1:
            found[node.id] = found[maker]
        else:
            found[node.id] = []
        found[node.id].append(node.id)
    distinct = {id(chain): chain for chain in found.values()}
    return sorted(distinct.values(), key=len, reverse=True)
