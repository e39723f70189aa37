"""The plan with the least makespan that a search finds: where branches of a network go while the host has another."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.planning.makespan import Makespan, Schedule, Scheduler, memories_of
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.problem import Node, Option, PlanningProblem
from layoutsel.planning.solve import solve
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_SAME_US = 1e-6
_TRIALS = 4000
"""Schedules that the descents may try. Work is limited, and the clock only where a machine is too slow for that: equal
problems get equal plans."""
_STARTS = 2
"""Plans that are descended from, the best ones: descents of different ones end at different places."""
_STEPS, _MOST_STEPS = 30, 800
"""Of the annealing: for each sub-graph, and in all."""
_AT_ONCE = (1, 2, 2, 3)
"""How many changes a step makes: one of these."""
_WARMTH = 0.02
"""How much longer, relative, a schedule may be at first to be gone on from."""

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
    problem: PlanningProblem, first: Decisions, *, time_limit_s: float = 30.0
) -> Parallel:
    """Search for decisions whose list schedule ends early, from `first` on.

    Whole plans are drawn to one memory or the other, and to where the bound's programme has the sub-graphs. Chains of
    them, between two places where the network branches or joins, take the decisions of these plans, as long as the
    makespan falls; then single sub-graphs take any. Simulated annealing by both kinds of moves comes last, as long as the
    bound is not reached.
    """
    start = time.monotonic()
    bound = relaxed(problem, time_limit_s=time_limit_s / 5)
    enough_us = bound.bound_us + _SAME_US
    wanted: list[Mapping[SubgraphId, str]] = [
        dict.fromkeys(problem.by_id, memory) for memory in memories_of(problem)
    ]
    wanted += [bound.memories] if bound.memories else []
    plans = [first, *_drawn(problem, wanted, start + time_limit_s)]
    scheduler = Scheduler(problem)
    starts = sorted((_Found(scheduler, plan) for plan in plans), key=lambda found: found.us)
    trials = _Trials(_TRIALS, enough_us, start + 0.7 * time_limit_s)
    moves = (_moves_of_chains(problem, plans), _moves_of_each(problem))
    ends = [_descended(scheduler, one, moves, trials) for one in starts[:_STARTS]]
    best = min(ends, key=lambda found: found.us)
    steps = min(_STEPS * len(problem.nodes), _MOST_STEPS)
    best = _annealed(problem, scheduler, best, _Trials(steps, enough_us, start + time_limit_s))
    return Parallel(decisions=best.decisions, schedule=best.schedule, bound_us=bound.bound_us)


class _Trials:
    """How many schedules may still be tried."""

    def __init__(self, count: int, enough_us: float, deadline: float) -> None:
        self.count = self.left = count
        self._enough_us = enough_us
        self._deadline = deadline

    def spent(self, best: _Found) -> bool:
        """Take one; True where there is none left, no time, or no need: the best one is short enough."""
        if time.monotonic() >= self._deadline:
            _LOG.info("no time is left to search for a shorter schedule")
            self.left = 0
        if self.left == 0 or best.us <= self._enough_us:
            return True
        self.left -= 1
        return False


class _Found:
    """A plan with its schedule."""

    def __init__(self, scheduler: Scheduler, decisions: Decisions) -> None:
        self.decisions = dict(decisions)
        self.schedule = scheduler.schedule(decisions)
        self.us = self.schedule.makespan_us


def _drawn(
    problem: PlanningProblem, wanted: Iterable[Mapping[SubgraphId, str]], deadline: float
) -> Iterator[Decisions]:
    """The best plans, by the sum, whose sub-graphs compute in these memories where they can."""
    for memories in wanted:
        if time.monotonic() >= deadline:
            return
        left_s = max(deadline - time.monotonic(), 0.1)
        yield solve(_kept_in(problem, memories), time_limit_s=left_s / 4).decisions


def _kept_in(problem: PlanningProblem, memories: Mapping[SubgraphId, str]) -> PlanningProblem:
    """The problem with what computes in these memories alone, wherever there is such a candidate."""
    able = {
        node.id
        for node in problem.nodes
        if any(o.memory == memories[node.id] for o in node.options)
    }

    def keep(node: Node, option: Option) -> bool:
        return node.id not in able or option.memory == memories[node.id]

    return problem.restrict(keep)


def _moves_of_chains(problem: PlanningProblem, plans: Sequence[Decisions]) -> list[Decisions]:
    """A chain as one of `plans` decides it."""
    return [{id_: plan[id_] for id_ in chain} for chain in chains(problem) for plan in plans]


def _moves_of_each(problem: PlanningProblem) -> list[Decisions]:
    """A sub-graph as any of its candidates says."""
    return [{node.id: option.decision} for node in problem.nodes for option in node.options]


def _descended(
    scheduler: Scheduler, best: _Found, kinds: Sequence[Sequence[Decisions]], trials: _Trials
) -> _Found:
    """Make whatever moves shorten the schedule, one kind after the other, until none does."""
    for moves in kinds:
        improved = True
        while improved:
            improved = False
            for move in moves:
                changed = {**best.decisions, **move}
                if changed == best.decisions:
                    continue
                if trials.spent(best):
                    return best
                found = _Found(scheduler, changed)
                if found.us < best.us - _SAME_US:
                    best, improved = found, True
    return best


def _annealed(
    problem: PlanningProblem, scheduler: Scheduler, best: _Found, trials: _Trials
) -> _Found:
    """Change some chains and sub-graphs at once; longer schedules are gone on from too, the more seldom the later it is."""
    rng = random.Random(0)
    groups = [*chains(problem), *([id_] for id_ in problem.by_id)]
    current = best
    while not trials.spent(best):
        changed = dict(current.decisions)
        for group in rng.choices(groups, k=rng.choice(_AT_ONCE)):
            changed |= _moved(problem, group, rng)
        found = _Found(scheduler, changed)
        warmth_us = _WARMTH * best.us * trials.left / trials.count
        if found.us - current.us < warmth_us * rng.expovariate(1.0):
            current = found
        if found.us < best.us - _SAME_US:
            best = found
    return best


def _moved(
    problem: PlanningProblem, group: Sequence[SubgraphId], rng: random.Random
) -> dict[SubgraphId, Decision]:
    """A chain where its cheapest candidates in a memory are, or a sub-graph as any candidate says."""
    nodes = [problem.by_id[id_] for id_ in group]
    drawn = rng.choice(nodes[0].options)
    if len(nodes) == 1:
        return {nodes[0].id: drawn.decision}
    there = {node.id: [o for o in node.options if o.memory == drawn.memory] for node in nodes}
    return {
        id_: min(options, key=lambda option: option.cost_us).decision
        for id_, options in there.items()
        if options
    }


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
