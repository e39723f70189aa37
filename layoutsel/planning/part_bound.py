"""Lower bound on the period of single pipelines: some part has at least its share of the network.

Give each sub-graph a weight. If equal machines take k parts, one of them has at least a k-th of the
total weight, and its load is at least the least load of any part of that weight. Any weights give a
valid bound. The least load by weight comes from dynamic programming over the sub-graphs in
topological order: a state says of each live tensor on which side of the part it was made, and
whether its cost is paid. Parts of different classes share the weight as their loads allow.

A part of a contiguous division lies between what comes before and what comes after it, and tensors
never go back. Other divisions have no such order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from layoutsel.planning.division import DivisionProblem

_BEFORE, _PART, _AFTER = range(3)
"""Sides of a part. Without an order, all outside is :data:`_BEFORE`."""
_FREE = 5
"""State of a tensor whose cost and order are ignored."""
_STEPS = 400
"""Number of units into which a share of the weight is divided."""
_MOST_STATES = 3000
"""Maximum number of states; beyond it, cheap tensors become free."""


class OutOfTime(Exception):
    """The deadline came before a bound."""


def part_bound(
    problem: DivisionProblem,
    *,
    contiguous: bool,
    most_us: float = np.inf,
    weights: np.ndarray | None = None,
    deadline: float = np.inf,
) -> float:
    """Bound the period of all divisions into one part per machine from below, microseconds.

    Parameters
    ----------
    problem
        Sub-graphs, tensors and machines.
    contiguous
        True to bound contiguous divisions alone.
    most_us
        Period of a known division: larger loads need no attention.
    weights
        Weight of each sub-graph; by default its time on the fastest class.
    deadline
        Deadline by :func:`time.monotonic`, seconds; 0 is returned after it.
    """
    if weights is None:
        weights = problem.compute_us.min(axis=1)
    if not weights.sum() > 0:
        return 0.0
    unit = weights.sum() / (sum(problem.counts) * _STEPS)
    whole = np.floor(weights / unit).astype(int)
    share = -(-int(whole.sum()) // max(problem.counts))
    try:
        least = [
            least_loads(
                problem, whole, min(share, int(whole.sum())), c, contiguous, most_us, deadline
            )
            for c in range(problem.classes)
        ]
    except OutOfTime:
        return 0.0
    return _least_period(problem, least, int(whole.sum()), most_us)


def _least_period(
    problem: DivisionProblem, least: Sequence[np.ndarray], total: int, most_us: float
) -> float:
    """Find the least period in which all machines together can take the total weight."""
    periods = np.unique(np.concatenate(least))
    periods = periods[np.isfinite(periods)]
    taken = np.zeros(len(periods))
    for loads, count in zip(least, problem.counts, strict=True):
        # Loads rise with the weight: each entry is the least load of at least so much.
        weight = np.searchsorted(loads, periods, side="right") - 1
        # The last entry stands for all larger weights, up to everything.
        taken += count * np.where(weight == len(loads) - 1, total, weight)
    enough = np.flatnonzero(taken >= total)
    return float(periods[enough[0]]) if len(enough) else most_us


def least_loads(
    problem: DivisionProblem,
    weights: np.ndarray,
    share: int,
    of_class: int,
    contiguous: bool,
    most_us: float,
    deadline: float,
) -> np.ndarray:
    """Compute the least load of parts of at least each weight, (share + 1,), microseconds."""
    table = _Table(problem, weights, share, of_class, contiguous, most_us)
    for node in range(problem.size):
        if time.monotonic() > deadline:
            raise OutOfTime
        table.decide(node)
    return table.result()


class _Table:
    """States of the dynamic program: one row of loads by weight for each combination of tensors."""

    def __init__(
        self,
        problem: DivisionProblem,
        weights: np.ndarray,
        share: int,
        of_class: int,
        contiguous: bool,
        most_us: float,
    ) -> None:
        self.problem, self.weights, self.share = problem, weights, share
        self.of_class, self.contiguous, self.most_us = of_class, contiguous, most_us
        self.live: list[int] = []
        self.left = [len(tensor.consumers) for tensor in problem.tensors]
        self.states = np.zeros((1, 0), dtype=np.int8)
        self.loads = np.full((1, share + 1), np.inf)
        self.loads[0, 0] = 0.0

    def decide(self, node: int) -> None:
        """Put a sub-graph on each side of the part."""
        sides = (_BEFORE, _PART, _AFTER) if self.contiguous else (_BEFORE, _PART)
        found = [self._put(node, side) for side in sides]
        reads = self.problem.consumed[node]
        for t in reads:
            self.left[t] -= 1
        kept = [i for i, t in enumerate(self.live) if self.left[t]]
        made = self.problem.produced[node]
        states = np.concatenate(
            [
                np.concatenate(
                    [one[:, kept], np.full((len(one), len(made)), _made(side), dtype=np.int8)],
                    axis=1,
                )
                for side, (one, _) in zip(sides, found, strict=True)
            ]
        )
        self.live = [self.live[i] for i in kept] + list(made)
        self.states, self.loads = _merged(states, np.concatenate([rows for _, rows in found]))
        self._forget()

    def result(self) -> np.ndarray:
        """Least load of parts of at least each weight."""
        least = self.loads.min(axis=0)
        return np.asarray(np.minimum.accumulate(least[::-1])[::-1])

    def _put(self, node: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        states, loads = self.states.copy(), self.loads
        allowed = np.ones(len(states), dtype=bool)
        more = np.zeros(len(states))
        for t in self.problem.consumed[node]:
            tensor, column = self.problem.tensors[t], states[:, self.live.index(t)]
            allowed &= _allowed(column, side, self.contiguous)
            if side == _PART:
                new = column == _BEFORE_UNPAID
                more += new * tensor.receive_us[self.of_class]
                column[new] = _BEFORE_PAID
            else:
                new = column == _PART_UNPAID
                more += new * tensor.send_us[self.of_class]
                column[new] = _PART_PAID
        states, loads, more = states[allowed], loads[allowed], more[allowed]
        if side == _PART:
            loads = _shifted(loads, int(self.weights[node]))
            more = more + self.problem.compute_us[node, self.of_class]
        loads = loads + more[:, None]
        loads[loads > self.most_us] = np.inf
        alive = np.isfinite(loads).any(axis=1)
        return states[alive], loads[alive]

    def _forget(self) -> None:
        """Ignore the cheapest live tensors while there are too many states."""
        while len(self.states) > _MOST_STATES:
            costs = [
                self.problem.tensors[t].send_us[self.of_class]
                + self.problem.tensors[t].receive_us[self.of_class]
                + (np.inf if (self.states[:, i] == _FREE).all() else 0.0)
                for i, t in enumerate(self.live)
            ]
            self.states[:, int(np.argmin(costs))] = _FREE
            self.states, self.loads = _merged(self.states, self.loads)


_BEFORE_UNPAID, _BEFORE_PAID, _PART_UNPAID, _PART_PAID, _AFTER_MADE = range(5)


def _made(side: int) -> int:
    return (_BEFORE_UNPAID, _PART_UNPAID, _AFTER_MADE)[side]


def _allowed(column: np.ndarray, side: int, contiguous: bool) -> np.ndarray:
    """True where a consumer of a tensor may be on a side."""
    if not contiguous or side == _AFTER:
        return np.ones(len(column), dtype=bool)
    if side == _PART:
        return np.asarray((column != _AFTER_MADE) | (column == _FREE))
    return np.asarray((column <= _BEFORE_PAID) | (column == _FREE))


def _shifted(loads: np.ndarray, weight: int) -> np.ndarray:
    """Add weight to all parts; the last entry is for at least the share."""
    if not weight:
        return loads
    found = np.full_like(loads, np.inf)
    last = loads.shape[1] - 1
    if weight < last:
        found[:, weight:] = loads[:, : last + 1 - weight]
    over = loads[:, max(last - weight, 0) :].min(axis=1)
    found[:, last] = np.minimum(found[:, last], over)
    return found


def _merged(states: np.ndarray, loads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal states; each weight keeps its least load."""
    if states.shape[1] == 0:
        return states[:1], loads.min(axis=0, keepdims=True)
    order = np.lexsort(states.T)
    states, loads = states[order], loads[order]
    new = np.concatenate([[True], (states[1:] != states[:-1]).any(axis=1)])
    starts = np.flatnonzero(new)
    return states[starts], np.minimum.reduceat(loads, starts, axis=0)
