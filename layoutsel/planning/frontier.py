"""Exact dynamic programming over a moving frontier of live tensors, with dominance pruning.

Sub-graphs are decided one after another in a topological order. The past affects the future only
through the *live* tensors (produced, but not yet read by all consumers). Their *residuals* are the
prices that remaining consumers may still have to pay, one for each layout, unit and memory (the
labels of :mod:`layoutsel.planning.tables`). Two partial plans with equal residuals merge, and the
cheaper one survives. This is variable elimination along a path decomposition (Dechter, "Bucket
elimination", 1999) where tensors, not operators, span the frontier, so that a transform shared by
several consumers costs one bit of state instead of a factor over all of them.

A partial plan B dominates A if ``cost(B) + worst(B -> A) < cost(A)``: any completion of A also
completes B, for at most `worst` more. Real networks keep a few dozen partial plans this way, and
wide ones stay exact much longer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.ordering import elimination_order
from layoutsel.planning.presolve import worst_extra
from layoutsel.planning.tables import Tables, TensorTable

_EPSILON = 1e-9
"""Rounding error of costs, microseconds."""
_REFERENCES = 8
"""Number of partial plans that the others are compared with for dominance."""
_CHUNK = 1 << 22
"""Maximum number of partial plans times options that are expanded at once."""
_ENTRIES = 1 << 24
"""Maximum number of entries of an array that describes one tensor; 128 MB."""
_PRODUCTS = 1 << 30
"""Maximum number of products in one comparison of a tensor's states; about a second."""


@dataclass(frozen=True, kw_only=True)
class FrontierResult:
    """Result of the dynamic program."""

    choice: tuple[int, ...]
    """Option of each node."""
    exact: bool
    """False if partial plans were dropped for space: then `choice` is not proven best."""
    widest: int
    """Maximum number of partial plans kept after a step."""


@dataclass(frozen=True, kw_only=True)
class Automaton:
    """Life of one tensor: residuals as numbered states, with one level per remaining consumer."""

    start: np.ndarray
    """First state, (producer options,)."""
    steps: tuple[np.ndarray, ...]
    """State after each consumer, (states before, consumer options)."""
    pays: tuple[np.ndarray, ...]
    """Payment at each consumer, (states before, consumer options), microseconds."""
    worst: tuple[np.ndarray, ...]
    """Maximum extra payment of B over A from each level on, (states B, states A), microseconds."""


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """Transitions from the partial plans before a step to those after it.

    A sweep records them only with a slack, for plans that cost more than the best.
    """

    parents: np.ndarray
    """Partial plan before the step, (transitions,)."""
    choices: np.ndarray
    """Option of the step's node, (transitions,)."""
    pays: np.ndarray
    """Cost that the step adds, (transitions,), microseconds."""
    targets: np.ndarray
    """Partial plan after the step, (transitions,)."""


class OutOfSpace(Exception):
    """The frontier is too wide for this solver, or the time limit is reached."""


def solve_frontier(
    tables: Tables, *, max_states: int = 200_000, beam: bool = False, deadline: float | None = None
) -> FrontierResult:
    """Choose an option for every node at the least cost.

    Parameters
    ----------
    tables
        Problem as numbers.
    max_states
        Maximum number of partial plans after a step.
    beam
        True to drop the most expensive partial plans beyond it; False to give up.
    deadline
        Time of :func:`time.monotonic` at which to give up, seconds.

    Raises
    ------
    OutOfSpace
        If there are too many partial plans and `beam` is False, or the deadline has passed.
    """
    sweep = Sweep(
        tables, elimination_order(tables), max_states=max_states, beam=beam, deadline=deadline
    )
    return sweep.run()


class Sweep:
    """State of one run: each row is a partial plan, with a column for each live tensor.

    An entry is the number of the tensor's residuals; equal residuals have the same number.
    """

    def __init__(
        self,
        tables: Tables,
        order: Sequence[int],
        *,
        max_states: int,
        beam: bool = False,
        deadline: float | None = None,
        slack_us: float = 0.0,
        automata: Sequence[Automaton] | None = None,
    ) -> None:
        """Prepare a run.

        Parameters
        ----------
        tables
            Problem as numbers.
        order
            Topological order of the nodes.
        max_states, beam, deadline
            See :func:`solve_frontier`.
        slack_us
            Maximum extra cost of plans that must survive the pruning, microseconds.
        automata
            Result of :func:`automata_of`, if it is known from another run.
        """
        self.tables, self.order, self.slack_us = tables, order, slack_us
        self.max_states, self.beam, self.deadline = max_states, beam, deadline
        self.automata = automata or automata_of(tables, order, deadline)
        inputs = [i for i, t in enumerate(tables.tensors) if t.producer < 0]
        self.live: list[int] = inputs
        self.level = dict.fromkeys(inputs, 0)
        first = [[self.automata[i].start[0] for i in inputs]]
        self.rows = np.array(first, dtype=np.int32).reshape(1, len(inputs))
        self.costs = np.zeros(1)
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self.transitions: list[Transitions] = []
        self.forward_costs: list[np.ndarray] = []
        self.exact, self.widest = True, 1

    def run(self) -> FrontierResult:
        """Decide all nodes in turn, and read back the best choice."""
        for node in self.order:
            _check_time(self.deadline)
            self._decide(node)
        best = int(np.argmin(self.costs))
        return FrontierResult(choice=self._trace(best), exact=self.exact, widest=self.widest)

    def _decide(self, node: int) -> None:
        options = len(self.tables.costs[node])
        if len(self.costs) * options > _CHUNK:
            raise OutOfSpace(f"{len(self.costs)} partial plans")
        parents = np.repeat(np.arange(len(self.costs)), options)
        choices = np.tile(np.arange(options), len(self.costs))
        costs = self.costs[parents] + self.tables.costs[node][choices]
        columns = {t: self.rows[parents, c] for c, t in enumerate(self.live)}
        for t in self.tables.consumed[node]:
            costs += self._use(t, columns, choices)
        for t in self.tables.produced[node]:
            columns[t] = self.automata[t].start[choices].astype(np.int32)
            self.level[t] = 0
        self.live = list(columns)
        rows = (
            np.stack([columns[t] for t in self.live], axis=1)
            if columns
            else np.zeros((len(costs), 0), dtype=np.int32)
        )
        pruned = self._prune(rows, costs)
        first, target = _cheapest_of_equal(rows[pruned], costs[pruned])
        kept = self._fit(pruned[first], costs)
        if self.slack_us > 0:
            self.forward_costs.append(self.costs)
            self.transitions.append(
                Transitions(
                    parents=parents[pruned],
                    choices=choices[pruned],
                    pays=costs[pruned] - self.costs[parents[pruned]],
                    targets=target,
                )
            )
        self.rows, self.costs = rows[kept], costs[kept]
        self.history.append((parents[kept].astype(np.int32), choices[kept].astype(np.int16)))
        self.widest = max(self.widest, len(kept))

    def _use(self, t: int, columns: dict[int, np.ndarray], choices: np.ndarray) -> np.ndarray:
        """Advance tensor `t` by its next consumer; returns the payment of each partial plan."""
        automaton, level = self.automata[t], self.level[t]
        pays = automaton.pays[level][columns[t], choices]
        if level + 1 == len(automaton.pays):
            del columns[t], self.level[t]
        else:
            columns[t] = automaton.steps[level][columns[t], choices]
            self.level[t] = level + 1
        return pays

    def _prune(self, rows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Return the partial plans that no reference dominates."""
        kept = np.arange(len(costs))
        worst = [self.automata[t].worst[self.level[t]] for t in self.live]
        done = 0
        while done < _REFERENCES and done < len(kept):
            cheapest = np.argpartition(costs[kept], done)[: done + 1]
            reference = kept[cheapest[np.argmax(costs[kept][cheapest])]]
            extra = np.zeros(len(kept))
            for column, table in enumerate(worst):
                extra += table[rows[reference, column]][rows[kept, column]]
            kept = kept[costs[kept] <= costs[reference] + extra + self.slack_us + _EPSILON]
            done += 1
        return kept

    def _fit(self, kept: np.ndarray, costs: np.ndarray) -> np.ndarray:
        if len(kept) <= self.max_states:
            return kept
        if not self.beam:
            raise OutOfSpace(f"more than {self.max_states} partial plans")
        self.exact = False
        return kept[np.argpartition(costs[kept], self.max_states)[: self.max_states]]

    def _trace(self, row: int) -> tuple[int, ...]:
        choice = [0] * len(self.order)
        for node, (parents, choices) in zip(
            reversed(self.order), reversed(self.history), strict=True
        ):
            choice[node] = int(choices[row])
            row = int(parents[row])
        return tuple(choice)


def _cheapest_of_equal(rows: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the cheapest among equal rows.

    Returns
    -------
    tuple
        Index of the cheapest row for each distinct row, and the number of the distinct row of each
        row.
    """
    if rows.shape[1] == 0:
        return np.array([int(np.argmin(costs))]), np.zeros(len(costs), dtype=np.int64)
    radix = rows.max(axis=0).astype(object) + 1
    if int(np.prod(radix)) < 2**62:
        weights = np.cumprod([1, *radix[:-1]]).astype(np.int64)
        keys = [rows.astype(np.int64) @ weights]
    else:
        keys = [rows[:, column] for column in range(rows.shape[1])]
    order = np.lexsort([costs, *keys])
    different = np.zeros(len(order), dtype=bool)
    different[0] = True
    for key in keys:
        different[1:] |= key[order][1:] != key[order][:-1]
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(different) - 1
    return order[different], group


def automata_of(
    tables: Tables, order: Sequence[int], deadline: float | None = None
) -> tuple[Automaton, ...]:
    """Make the automata of all tensors for a topological order of the nodes.

    Raises
    ------
    OutOfSpace
        If a tensor would take too much space or time, or the deadline has passed.
    """
    rank = {node: position for position, node in enumerate(order)}
    return tuple(
        _automaton(tensor, sorted(tensor.merged, key=rank.__getitem__), deadline)
        for tensor in tables.tensors
    )


def _automaton(tensor: TensorTable, sequence: Sequence[int], deadline: float | None) -> Automaton:
    """Make the automaton of a tensor; states are residual prices.

    They are rounded to one millionth of a microsecond to merge equal ones.
    """
    wants = [tensor.merged[consumer] for consumer in sequence]
    needed = np.stack([want.any(axis=0) for want in wants])
    residuals = tensor.charge * needed.any(axis=0)
    states, start = _unique(residuals)
    steps, pays, worst = [], [], []
    for level, want in enumerate(wants):
        _check_time(deadline)
        _check_size(len(states), wants[level:])
        worst.append(worst_extra(states, wants[level:]))
        pays.append(states @ want.T)
        later = needed[level + 1 :].any(axis=0)
        after = states[:, None, :] * (~want)[None, :, :] * later
        states, numbers = _unique(after.reshape(-1, states.shape[1]))
        steps.append(numbers.reshape(after.shape[:2]).astype(np.int32))
    return Automaton(
        start=start.astype(np.int32), steps=tuple(steps), pays=tuple(pays), worst=tuple(worst)
    )


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise OutOfSpace("time is up")


def _check_size(states: int, wants: Sequence[np.ndarray]) -> None:
    """Reject a level with too large arrays: pairs of states, or states with options."""
    options, labels = max(map(len, wants)), wants[0].shape[1]
    entries = states * max(states * max(labels, options), options * labels)
    if entries > _ENTRIES:
        raise OutOfSpace(f"a tensor takes {states} states, and an array of {entries} entries")
    # No deadline ends a comparison, which is one product of matrices for each pair of states.
    if (products := states * states * labels * options) > _PRODUCTS:
        raise OutOfSpace(f"a tensor takes {states} states, and {products} products to compare them")


def _unique(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the different rows, and the number of the one that each row equals.

    :func:`numpy.unique` does the same for rows, in several times the time.
    """
    rounded = residuals.round(6)
    order = np.lexsort(rounded.T[::-1])
    ordered = rounded[order]
    different = np.ones(len(order), dtype=bool)
    different[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(order), dtype=np.intp)
    inverse[order] = np.cumsum(different) - 1
    return residuals[order[different]], inverse
