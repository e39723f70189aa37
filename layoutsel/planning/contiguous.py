"""Best contiguous division: dynamic programming over ideals and counts of machines per class.

A part lies between an ideal and a larger one (Tarnawski et al., NeurIPS 2020, section 5.1). Equal
machines are counted, not named, so that 4 classes of 16 machines have 83,521 states instead of
2^64. The result is exact if all ideals fit in the tables, and the best over some of them otherwise.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.division import Division, DivisionProblem
from layoutsel.planning.ideals import all_ideals, some_ideals

_MOST_IDEALS = 4000
"""Maximum number of ideals; loads of their pairs take 128 MB for each class."""
_SOME_IDEALS = 2500
"""Maximum number of ideals if they are not all; more take longer and help little."""
OPERATIONS = 2e10
"""Maximum number of operations of the dynamic program; about a minute."""
Counts = tuple[int, ...]
"""Number of machines in use, by class."""


@dataclass(frozen=True, kw_only=True)
class ContiguousResult:
    """Best contiguous division over some ideals."""

    division: Division | None
    """The division; None if memory does not suffice for any that was found in time."""
    period_us: float
    """Greatest load, microseconds; infinite without a division."""
    exact: bool
    """True if no contiguous division is better."""
    complete: bool
    """False if the deadline came first."""


def best_contiguous(
    problem: DivisionProblem,
    *,
    teams: bool = False,
    most_ideals: int = _MOST_IDEALS,
    operations: float = OPERATIONS,
    deadline: float = np.inf,
    seed: int = 0,
) -> ContiguousResult:
    """Find the contiguous division with the least period.

    Parameters
    ----------
    problem
        Sub-graphs, tensors and machines.
    teams
        True if several equal machines may share the requests of a part.
    most_ideals
        Maximum number of ideals that are considered.
    operations
        Maximum number of operations, which may allow fewer ideals.
    deadline
        Deadline by :func:`time.monotonic`, seconds.
    seed
        Seed of the orders, if there are too many ideals.
    """
    most = min(most_ideals, _affordable(problem, teams, operations))
    members = all_ideals(problem, most)
    exact = members is not None
    if members is None:
        members = some_ideals(problem, min(most, _SOME_IDEALS), seed=seed)
    loads = [part_loads(problem, members, c) for c in range(problem.classes)]
    best, steps = _table(problem, loads, teams, deadline)
    last = max(best, key=lambda counts: (-best[counts][-1], [-c for c in counts]))
    period = float(best[last][-1])
    complete = len(best) == int(np.prod([count + 1 for count in problem.counts]))
    if not np.isfinite(period):
        return ContiguousResult(division=None, period_us=period, exact=exact, complete=complete)
    division = _division(members, steps, last)
    return ContiguousResult(division=division, period_us=period, exact=exact, complete=complete)


def part_loads(problem: DivisionProblem, members: np.ndarray, of_class: int) -> np.ndarray:
    """Compute the load of the part between each two ideals, (smaller, larger), microseconds.

    It is infinite if the smaller one is no subset, or if memory does not suffice.
    """
    inside = members.astype(float)
    compute = inside @ problem.compute_us[:, of_class]
    held = inside @ problem.bytes
    loads = compute[None, :] - compute[:, None]
    gone, coming = _received(problem, members, of_class)
    loads += gone @ coming.T
    made, open_ = _sent(problem, members, of_class)
    loads += made @ open_.T
    loads[(inside @ (1.0 - inside).T) > 0.5] = np.inf
    loads[held[None, :] - held[:, None] > problem.limits[of_class] * (1 + 1e-12)] = np.inf
    return np.asarray(loads)


def _received(
    problem: DivisionProblem, members: np.ndarray, of_class: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the received time: what smaller ideals have made, and what larger ones read.

    A part reads a tensor if the larger ideal has more of its consumers than the smaller one.
    """
    gone, coming = [], []
    for tensor in problem.tensors:
        us = tensor.receive_us[of_class]
        if us > 0:
            made = members[:, tensor.producer]
            readers = members[:, list(tensor.consumers)].sum(axis=1)
            for count in range(len(tensor.consumers)):
                gone.append(us * (made & (readers == count)))
                coming.append(readers > count)
    return _columns(gone, len(members)), _columns(coming, len(members))


def _sent(
    problem: DivisionProblem, members: np.ndarray, of_class: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the sent time: what smaller ideals have not made, and larger ones leave unread."""
    missing, unread = [], []
    for tensor in problem.tensors:
        us = tensor.send_us[of_class]
        if us > 0:
            made = members[:, tensor.producer]
            missing.append(us * ~made)
            unread.append(made & ~members[:, list(tensor.consumers)].all(axis=1))
    return _columns(missing, len(members)), _columns(unread, len(members))


def _columns(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.array(columns, dtype=float).reshape(len(columns), rows).T


def _affordable(problem: DivisionProblem, teams: bool, operations: float) -> int:
    """Compute the number of ideals for which the dynamic program takes some operations."""
    states = float(np.prod([count + 1 for count in problem.counts]))
    moves = sum(max(problem.counts) if teams else 1 for _ in problem.counts)
    return max(int((operations / (states * moves)) ** 0.5), 32)


def _moves(counts: Counts, teams: bool) -> Iterator[tuple[int, int, Counts]]:
    """Yield (class, number of machines, counts before) of the last part."""
    for c, count in enumerate(counts):
        for team in range(1, count + 1 if teams else min(count, 1) + 1):
            yield c, team, tuple(n - team * (i == c) for i, n in enumerate(counts))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Best last parts with some counts of machines."""

    moves: tuple[tuple[int, int, Counts], ...]
    """Class and number of machines of the last part, and the counts before."""
    move: np.ndarray
    """Number of the best move, (ideals,)."""
    smaller: np.ndarray
    """Ideal before the last part, (ideals,)."""


def _table(
    problem: DivisionProblem, loads: list[np.ndarray], teams: bool, deadline: float
) -> tuple[dict[Counts, np.ndarray], dict[Counts, _Step]]:
    """Compute the least period of covering each ideal with each number of machines."""
    size = len(loads[0])
    start = np.full(size, np.inf)
    start[0] = 0.0
    states = itertools.product(*(range(count + 1) for count in problem.counts))
    best = {next(states): start}
    steps: dict[Counts, _Step] = {}
    for counts in states:
        # The first machine alone is an answer, if memory suffices.
        if steps and time.monotonic() > deadline:
            break
        moves = tuple(_moves(counts, teams))
        found = [_extended(best[before], loads[c], team) for c, team, before in moves]
        periods = np.array([period for period, _ in found])
        move = periods.argmin(axis=0)
        every = np.arange(size)
        best[counts] = periods[move, every]
        smaller = np.array([chosen for _, chosen in found])[move, every]
        steps[counts] = _Step(moves=moves, move=move, smaller=smaller)
    return best, steps


def _extended(before: np.ndarray, loads: np.ndarray, team: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the least period with one more part, and the ideal before it, by larger ideal."""
    reached = np.flatnonzero(np.isfinite(before))
    periods = np.maximum(before[reached, None], loads[reached] / team)
    chosen = periods.argmin(axis=0)
    return periods[chosen, np.arange(len(chosen))], reached[chosen]


def _division(members: np.ndarray, steps: dict[Counts, _Step], counts: Counts) -> Division:
    """Read back the parts, the last one first."""
    part_of = np.zeros(members.shape[1], dtype=int)
    classes: list[int] = []
    teams: list[int] = []
    ideal = len(members) - 1
    while ideal:
        step = steps[counts]
        c, team, counts = step.moves[step.move[ideal]]
        smaller = int(step.smaller[ideal])
        if smaller != ideal:
            part_of[members[ideal] & ~members[smaller]] = len(classes)
            classes.append(c)
            teams.append(team)
        ideal = smaller
    order = len(classes) - 1 - part_of
    return Division(
        part_of=tuple(order.tolist()), classes=tuple(classes[::-1]), teams=tuple(teams[::-1])
    )
