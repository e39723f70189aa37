"""Search for the plan with the least makespan: devices and host run branches concurrently."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.cost.place import memory_name
from layoutsel.planning.calls import memories_of
from layoutsel.planning.makespan import Schedule, Scheduler
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.planning.symmetry import twins
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_SAME_US = 1e-6
"""Difference of equal makespans, microseconds."""
_ROUNDING = 1e-9
"""Relative difference of equal sums that were added in different orders."""
_TRIALS = 4000
"""Maximum number of schedules that the descents try.

The count ends the search, not the clock unless the machine is slow, so that equal problems get
equal plans.
"""
_STARTS = 2
"""Number of best plans to descend from; different starts lead to different ends."""
_STEPS, _MOST_STEPS = 30, 800
"""Number of steps of the cool annealing: per sub-graph, and at most.

The warm annealing takes the rest of the maximum.
"""
_AT_ONCE = (1, 2, 2, 3)
"""Numbers of changes to draw from for one step of the annealing."""
_COOL, _WARM = 0.02, 0.2
"""Relative increase of the makespan that each annealing accepts at its start.

In small networks, most moves change the makespan by more than the cool one accepts.
"""

Decisions = Mapping[SubgraphId, Decision]


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Decisions with their schedule and certificate."""

    decisions: Decisions
    """Decision of each sub-graph."""
    schedule: Schedule
    """Shortest schedule found for the decisions."""
    bound_us: float
    """Lower bound on the schedules of all plans of the problem, microseconds."""


def solve_parallel(
    problem: PlanningProblem, first: Decisions, *, time_limit_s: float = 30.0
) -> Parallel:
    """Search for decisions with a short list schedule, beginning with `first`.

    Other starting plans prefer one memory, or the memories in the relaxed plan of the lower bound,
    or distribute chains over identical devices. From the best starts, chains of sub-graphs take the
    decisions of other starts while the makespan falls; then single sub-graphs take any candidate.
    Two simulated annealings with both kinds of moves follow, until the bound is reached.

    Parameters
    ----------
    problem
        Problem to solve.
    first
        Decisions to start from.
    time_limit_s
        Time limit, seconds.
    """
    start = time.monotonic()
    bound = relaxed(problem, time_limit_s=time_limit_s / 5)
    enough_us = bound.bound_us + _SAME_US
    groups = [[memory_name(device) for device in group] for group in twins(problem)]
    others = {memory for group in groups for memory in group[1:]}
    wanted: list[Mapping[SubgraphId, str]] = [
        dict.fromkeys(problem.by_id, memory)
        for memory in memories_of(problem)
        if memory not in others
    ]
    wanted += [bound.memories] if bound.memories else []
    wanted += [_dealt(problem, group) for group in groups]
    plans = [first, *_drawn(problem, wanted, start + time_limit_s)]
    scheduler = Scheduler(problem)
    starts = sorted((_Found(scheduler, plan) for plan in plans), key=lambda found: found.us)
    trials = _Trials(_TRIALS, enough_us, start + 0.7 * time_limit_s)
    moves = (_moves_of_chains(problem, plans), _moves_of_each(problem))
    ends = [_descended(scheduler, one, moves, trials) for one in starts[:_STARTS]]
    best = min(ends, key=lambda found: found.us)
    steps = min(_STEPS * len(problem.nodes), _MOST_STEPS)
    for warmth, count in ((_COOL, steps), (_WARM, _MOST_STEPS - steps)):
        trials = _Trials(count, enough_us, start + time_limit_s)
        best = _annealed(problem, scheduler, best, trials, warmth)
    most_us = best.us * (1 + _ROUNDING) + _SAME_US
    assert bound.bound_us <= most_us, f"{bound.bound_us} us is no lower bound on {best.us} us"
    return Parallel(decisions=best.decisions, schedule=best.schedule, bound_us=bound.bound_us)


class _Trials:
    """Budget of schedules to try."""

    def __init__(self, count: int, enough_us: float, deadline: float) -> None:
        self.count = self.left = count
        self._enough_us = enough_us
        self._deadline = deadline

    def spent(self, best: _Found) -> bool:
        """Use one trial; True if no trial or time is left, or `best` reaches the bound."""
        if time.monotonic() >= self._deadline:
            _LOG.info("no time is left to search for a shorter schedule")
            self.left = 0
        if self.left == 0 or best.us <= self._enough_us:
            return True
        self.left -= 1
        return False


class _Found:
    """Decisions with their schedule."""

    def __init__(self, scheduler: Scheduler, decisions: Decisions) -> None:
        self.decisions = dict(decisions)
        self.schedule = scheduler.schedule(decisions)
        self.us = self.schedule.makespan_us


def _drawn(
    problem: PlanningProblem, wanted: Iterable[Mapping[SubgraphId, str]], deadline: float
) -> Iterator[Decisions]:
    """Yield the plan with the least sum for each wanted division, as far as possible."""
    for memories in wanted:
        if time.monotonic() >= deadline:
            return
        left_s = max(deadline - time.monotonic(), 0.1)
        yield solve(_kept_in(problem, memories), time_limit_s=left_s / 4).decisions


def _dealt(problem: PlanningProblem, memories: Sequence[str]) -> dict[SubgraphId, str]:
    """Distribute the chains over interchangeable memories, each to the least loaded one.

    The longest chain comes first.
    """
    costs = {
        node.id: min((o.cost_us for o in node.options if o.memory in memories), default=0.0)
        for node in problem.nodes
    }
    loads = dict.fromkeys(memories, 0.0)
    dealt: dict[SubgraphId, str] = {}
    for chain in sorted(chains(problem), key=lambda chain: -sum(costs[id_] for id_ in chain)):
        memory = min(loads, key=loads.__getitem__)
        loads[memory] += sum(costs[id_] for id_ in chain)
        dealt |= dict.fromkeys(chain, memory)
    return dealt


def _kept_in(problem: PlanningProblem, memories: Mapping[SubgraphId, str]) -> PlanningProblem:
    """Keep only the candidates in these memories, for sub-graphs that have any."""
    able = {
        node.id
        for node in problem.nodes
        if any(o.memory == memories[node.id] for o in node.options)
    }

    def keep(node: PricedSubgraph, option: Option) -> bool:
        return node.id not in able or option.memory == memories[node.id]

    return problem.restrict(keep)


def _moves_of_chains(problem: PlanningProblem, plans: Sequence[Decisions]) -> list[Decisions]:
    """List moves that give a whole chain the decisions of one of `plans`."""
    return [{id_: plan[id_] for id_ in chain} for chain in chains(problem) for plan in plans]


def _moves_of_each(problem: PlanningProblem) -> list[Decisions]:
    """List moves that give one sub-graph any of its candidates."""
    return [{node.id: option.decision} for node in problem.nodes for option in node.options]


def _descended(
    scheduler: Scheduler, best: _Found, kinds: Sequence[Sequence[Decisions]], trials: _Trials
) -> _Found:
    """Make moves that shorten the schedule, one kind after another, until none does."""
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
    problem: PlanningProblem, scheduler: Scheduler, best: _Found, trials: _Trials, warmth: float
) -> _Found:
    """Change several chains and sub-graphs per step; accept longer schedules ever more rarely."""
    rng = random.Random(0)
    groups = [*chains(problem), *([id_] for id_ in problem.by_id)]
    current = best
    while not trials.spent(best):
        changed = dict(current.decisions)
        for group in rng.choices(groups, k=rng.choice(_AT_ONCE)):
            changed |= _moved(problem, group, rng)
        found = _Found(scheduler, changed)
        warmth_us = warmth * best.us * trials.left / trials.count
        if found.us - current.us < warmth_us * rng.expovariate(1.0):
            current = found
        if found.us < best.us - _SAME_US:
            best = found
    return best


def _moved(
    problem: PlanningProblem, group: Sequence[SubgraphId], rng: random.Random
) -> dict[SubgraphId, Decision]:
    """Draw a random move: a chain's cheapest candidates in one memory, or one candidate."""
    nodes = [problem.by_id[id_] for id_ in group]
    drawn = rng.choice(nodes[0].options)
    if len(nodes) == 1:
        return {nodes[0].id: drawn.decision}
    return cheapest_in(drawn.memory, nodes)


def cheapest_in(memory: str, nodes: Iterable[PricedSubgraph]) -> dict[SubgraphId, Decision]:
    """Choose the cheapest candidates in a memory, for sub-graphs that have any there."""
    there = {node.id: [o for o in node.options if o.memory == memory] for node in nodes}
    return {
        id_: min(options, key=lambda option: option.cost_us).decision
        for id_, options in there.items()
        if options
    }


def chains(problem: PlanningProblem) -> list[list[SubgraphId]]:
    """Find maximal chains of sub-graphs without inner branches and joins, the longest first."""
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
