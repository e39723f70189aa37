"""Heuristic search for a plan with a short list schedule: descents and simulated annealing."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layoutsel.cost.place import memory_name
from layoutsel.planning.calls import memories_of
from layoutsel.planning.chains import chains, cheapest_in
from layoutsel.planning.makespan import Schedule, Scheduler
from layoutsel.planning.makespan_bound import Relaxed
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.planning.symmetry import twins
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

SAME_US = 1e-6
"""Difference of equal makespans, microseconds."""
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
"""Decision of each sub-graph."""


class Found:
    """Decisions with their schedule."""

    def __init__(self, decisions: Decisions, schedule: Schedule) -> None:
        self.decisions = dict(decisions)
        self.schedule = schedule
        self.us = schedule.makespan_us


def searched(
    problem: PlanningProblem,
    scheduler: Scheduler,
    first: Decisions,
    bound: Relaxed,
    *,
    enough_us: float,
    time_limit_s: float,
) -> Found:
    """Search for decisions with a short list schedule, beginning with `first`.

    Other starting plans prefer one memory, or the memories in the relaxed plan of the lower bound,
    or distribute chains over identical devices. From the best starts, chains of sub-graphs take the
    decisions of other starts while the makespan falls; then single sub-graphs take any candidate.
    Two simulated annealings with both kinds of moves follow.

    Parameters
    ----------
    problem
        Problem to solve.
    scheduler
        Schedules of its plans.
    first
        Decisions to start from.
    bound
        Best plan of the relaxed problem.
    enough_us
        Makespan at which the search ends, microseconds.
    time_limit_s
        Time limit, seconds.
    """
    start = time.monotonic()
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
    starts = sorted((_listed(scheduler, plan) for plan in plans), key=lambda found: found.us)
    trials = _Trials(_TRIALS, enough_us, start + 0.7 * time_limit_s)
    moves = (_moves_of_chains(problem, plans), _moves_of_each(problem))
    ends = [_descended(scheduler, one, moves, trials) for one in starts[:_STARTS]]
    best = min(ends, key=lambda found: found.us)
    steps = min(_STEPS * len(problem.nodes), _MOST_STEPS)
    for warmth, count in ((_COOL, steps), (_WARM, _MOST_STEPS - steps)):
        trials = _Trials(count, enough_us, start + time_limit_s)
        best = _annealed(problem, scheduler, best, trials, warmth)
    return best


class _Trials:
    """Budget of schedules to try."""

    def __init__(self, count: int, enough_us: float, deadline: float) -> None:
        self.count = self.left = count
        self._enough_us = enough_us
        self._deadline = deadline

    def spent(self, best: Found) -> bool:
        """Use one trial; True if no trial or time is left, or `best` reaches the bound."""
        if time.monotonic() >= self._deadline:
            _LOG.info("no time is left to search for a shorter schedule")
            self.left = 0
        if self.left == 0 or best.us <= self._enough_us:
            return True
        self.left -= 1
        return False


def _listed(scheduler: Scheduler, decisions: Decisions) -> Found:
    """Schedule decisions quickly: searches try thousands."""
    return Found(decisions, scheduler.listed(decisions))


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
    scheduler: Scheduler, best: Found, kinds: Sequence[Sequence[Decisions]], trials: _Trials
) -> Found:
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
                found = _listed(scheduler, changed)
                if found.us < best.us - SAME_US:
                    best, improved = found, True
    return best


def _annealed(
    problem: PlanningProblem, scheduler: Scheduler, best: Found, trials: _Trials, warmth: float
) -> Found:
    """Change several chains and sub-graphs per step; accept longer schedules ever more rarely."""
    rng = random.Random(0)
    groups = [*chains(problem), *([id_] for id_ in problem.by_id)]
    current = best
    while not trials.spent(best):
        changed = dict(current.decisions)
        for group in rng.choices(groups, k=rng.choice(_AT_ONCE)):
            changed |= _moved(problem, group, rng)
        found = _listed(scheduler, changed)
        warmth_us = warmth * best.us * trials.left / trials.count
        if found.us - current.us < warmth_us * rng.expovariate(1.0):
            current = found
        if found.us < best.us - SAME_US:
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
