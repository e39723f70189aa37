"""Lower bound on the period of single pipelines: some part has at least its share of the network.

Give each sub-graph a weight. If equal machines take k parts, one of them has at least a k-th of the
total weight, and its load is at least the least load of any part of that weight. Any weights give a
valid bound; machines of several classes share the weight as their loads allow.

The best weights are the dual of a linear programme: cover all sub-graphs with parts of limited
load, on as few machines as possible. Parts are generated as the weights change, as the placements
in :mod:`~layoutsel.planning.columns`. A bottleneck that is large for a local reason, such as one
sub-graph between large tensors, gets all the weight.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from layoutsel.planning.division import DivisionProblem
from layoutsel.planning.parts import OutOfTime, PartTable

_STEPS = 200
"""Number of units into which a machine's share of the weight is divided."""
_ENTRIES = 1e8
"""Maximum number of entries of all tables, 400 MB."""
_MOST_STATES = 1500
"""Maximum number of states of a table."""
_BOTTLENECKS = 4
"""Number of sub-graphs that are tried with all the weight."""
_LATE = 1
"""Status of :func:`scipy.optimize.linprog` at its time limit."""
_CENTRE = 0.5
"""Weight of the best weights so far against those of the programme."""


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
    parts = _Parts(problem, contiguous, most_us, deadline)
    if weights is None:
        weights = problem.compute_us.min(axis=1)
    try:
        return parts.bound(weights)
    except OutOfTime:
        return 0.0


def best_part_bound(
    problem: DivisionProblem,
    *,
    contiguous: bool,
    most_us: float,
    deadline: float,
    gap: float = 1e-3,
    rounds: int = 200,
) -> float:
    """Bound the period from below with the best weights, microseconds.

    Parameters
    ----------
    problem, contiguous, most_us, deadline
        See :func:`part_bound`; after the deadline, the best bound so far is returned.
    gap
        Relative gap to `most_us` at which to stop.
    rounds
        Maximum number of weights to try.
    """
    parts = _Parts(problem, contiguous, most_us, deadline)
    weights = problem.compute_us.min(axis=1)
    share = _CENTRE
    best = float(max(weights.max(), weights.sum() / sum(problem.counts)))
    centre = weights
    unproven = most_us
    try:
        for node in np.argsort(-_alone_us(problem), kind="stable")[:_BOTTLENECKS].tolist():
            best = max(best, parts.bound((np.arange(problem.size) == node).astype(float)))
        for _ in range(rounds):
            found = parts.bound(weights)
            # Without a rise, the weights come closer to those of the programme.
            share = _CENTRE if found > best else share / 2
            if found > best:
                best, centre = found, weights
            if best >= (1.0 - gap) * most_us or unproven - best <= gap * most_us:
                break
            wanted = None
            while wanted is None and unproven - best > gap * most_us:
                target = best + 0.5 * (unproven - best)
                parts.collect(target)
                wanted = parts.weights(target)
                if wanted is None:
                    unproven = target
            if wanted is None:
                break
            scale = centre.sum() / wanted.sum()
            weights = share * centre + (1.0 - share) * scale * wanted
    except OutOfTime:
        pass
    return min(best, most_us)


def _alone_us(problem: DivisionProblem) -> np.ndarray:
    """Compute the load of each sub-graph alone on a machine of the first class, microseconds."""
    found = problem.compute_us[:, 0].copy()
    for tensor in problem.tensors:
        found[tensor.producer] += tensor.send_us[0]
        found[list(tensor.consumers)] += tensor.receive_us[0]
    return found


class _Parts:
    """Parts that were found for some weights."""

    def __init__(
        self, problem: DivisionProblem, contiguous: bool, most_us: float, deadline: float
    ) -> None:
        self._problem, self._contiguous = problem, contiguous
        self._most_us, self._deadline = most_us, deadline
        self._most_states = int(min(_ENTRIES / (problem.size * _STEPS), _MOST_STATES))
        self._tables: list[PartTable] = []
        self._inside: list[list[np.ndarray]] = [[] for _ in problem.counts]
        self._loads: list[list[float]] = [[] for _ in problem.counts]

    def bound(self, weights: np.ndarray) -> float:
        """Bound the period with some weights, microseconds."""
        total = float(weights.sum())
        if not total > 0:
            return 0.0
        counts = self._problem.counts
        # Rounding the running sum keeps the total, so that small weights do not vanish.
        steps = np.floor(np.cumsum(weights) / total * (sum(counts) * _STEPS) + 0.5).astype(int)
        units = np.diff(steps, prepend=0)
        share = -(-int(units.sum()) // max(counts))
        self._tables = [
            PartTable(
                self._problem,
                units.tolist(),
                share,
                c,
                contiguous=self._contiguous,
                most_us=self._most_us,
                most_states=self._most_states,
                deadline=self._deadline,
            )
            for c in range(self._problem.classes)
        ]
        least = [table.least_us for table in self._tables]
        return _least_period(counts, least, int(units.sum()), self._most_us)

    def collect(self, most_us: float) -> None:
        """Keep the heaviest part of each table, and lighter ones."""
        for c, table in enumerate(self._tables):
            for limit in (most_us, 0.9 * most_us, 0.7 * most_us):
                inside = table.heaviest(limit)
                self._inside[c].append(inside)
                self._loads[c].append(limit)

    def weights(self, most_us: float) -> np.ndarray | None:
        """Find weights that the known parts of limited load cannot cover; None if they can."""
        from scipy.optimize import linprog

        size, counts = self._problem.size, self._problem.counts
        rows = []
        for c, (some, loads) in enumerate(zip(self._inside, self._loads, strict=True)):
            minus = -(np.arange(len(counts)) == c).astype(float)
            rows += [
                np.concatenate([inside, minus])
                for inside, load in zip(some, loads, strict=True)
                if load <= most_us
            ]
        # Weights that add up to 1, and the most that a part of each class can have.
        found = linprog(
            np.concatenate([np.zeros(size), counts]),
            A_ub=np.array(rows),
            b_ub=np.zeros(len(rows)),
            A_eq=[np.concatenate([np.ones(size), np.zeros(len(counts))])],
            b_eq=[1.0],
            method="highs",
            options={"time_limit": max(min(self._deadline - time.monotonic(), 3600.0), 0.01)},
        )
        if found.status == _LATE:
            raise OutOfTime
        if found.x is None or found.fun >= 1.0 - 1e-9:
            return None
        return np.maximum(found.x[:size], 0.0)


def _least_period(
    counts: Sequence[int], least: Sequence[np.ndarray], total: int, most_us: float
) -> float:
    """Find the least period in which all machines together can take the total weight."""
    periods = np.unique(np.concatenate(least))
    periods = periods[np.isfinite(periods)]
    taken = np.zeros(len(periods))
    for loads, count in zip(least, counts, strict=True):
        # Loads rise with the weight: each entry is the least load of at least so much.
        weight = np.searchsorted(loads, periods, side="right") - 1
        # The last entry stands for all larger weights, up to everything.
        taken += count * np.where(weight == len(loads) - 1, total, weight)
    enough = np.flatnonzero(taken >= total)
    return float(periods[enough[0]]) if len(enough) else most_us
