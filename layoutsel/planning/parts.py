"""Lightest loads of parts: dynamic programming over the sides that sub-graphs are on.

Give each sub-graph a weight. The least load of a part of some weight comes from dynamic programming
over the sub-graphs in topological order: a state says of each live tensor on which side of the part
it was made, and whether its cost is paid. A part of a contiguous division lies between what comes
before and what comes after it, and tensors never go back. Other divisions have no such order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.division import DivisionProblem
from layoutsel.planning.ideals import narrow_order

_BEFORE, _PART, _AFTER = range(3)
"""Sides of a part. Without an order, all outside is :data:`_BEFORE`."""
_BEFORE_UNPAID, _BEFORE_PAID, _PART_UNPAID, _PART_PAID, _AFTER_MADE, _FREE = range(6)
"""States of a live tensor: where it was made, and whether its cost is paid.

The cost and the order of a free one are ignored.
"""


class OutOfTime(Exception):
    """The deadline came before a result."""


_MADE = {_BEFORE: _BEFORE_UNPAID, _PART: _PART_UNPAID, _AFTER: _AFTER_MADE}
"""State of a tensor that is made on a side."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Rows before a step, by row and weight after it."""

    node: int
    """Sub-graph that the step decides."""
    source: np.ndarray
    """Number among the extended rows, (rows, weights)."""
    sides: np.ndarray | None = None
    """Side of the sub-graph, (extended rows,); None if the step only ignores a tensor."""
    rows: np.ndarray | None = None
    """Row before the step, (extended rows,)."""
    weight: int = 0
    """Weight of the sub-graph."""
    last: np.ndarray | None = None
    """Best weight before one that exceeds the share, counted from the end, (rows before,)."""

    def before(self, row: int, weight: int) -> tuple[int | None, int, int]:
        """Return the side, and row and weight before the step."""
        number = int(self.source[row, weight])
        if self.sides is None or self.rows is None or self.last is None:
            return None, number, weight
        side, former = int(self.sides[number]), int(self.rows[number])
        if side != _PART or not self.weight:
            return side, former, weight
        share = self.source.shape[1] - 1
        if weight < share:
            return side, former, weight - self.weight
        return side, former, share + int(self.last[former])


class PartTable:
    """Least load of parts by weight, on machines of one class.

    Each row of loads belongs to a combination of states of the live tensors; its last column stands
    for all weights from there on.
    """

    def __init__(
        self,
        problem: DivisionProblem,
        weights: Sequence[int],
        share: int,
        of_class: int,
        *,
        contiguous: bool,
        most_us: float,
        most_states: int,
        deadline: float,
    ) -> None:
        """Fill the table.

        Parameters
        ----------
        problem
            Sub-graphs, tensors and machines.
        weights
            Weight of each sub-graph.
        share
            Weight from which on parts are not distinguished.
        of_class
            Class of the machine.
        contiguous
            True for parts of contiguous divisions alone.
        most_us
            Maximum load, microseconds.
        most_states
            Maximum number of states; beyond it, the cost of cheap tensors is ignored.
        deadline
            Deadline by :func:`time.monotonic`, seconds.

        Raises
        ------
        OutOfTime
            If the deadline comes first.
        """
        self._problem, self._weights, self._class = problem, weights, of_class
        self._contiguous, self._most_us, self._most_states = contiguous, most_us, most_states
        self._live: list[int] = []
        self._left = [len(tensor.consumers) for tensor in problem.tensors]
        self._states = np.zeros((1, 0), dtype=np.int8)
        self._loads = np.full((1, share + 1), np.inf)
        self._loads[0, 0] = 0.0
        self._history: list[_Step] = []
        for node in narrow_order(problem):
            if time.monotonic() > deadline:
                raise OutOfTime
            self._decide(node)

    @property
    def least_us(self) -> np.ndarray:
        """Least load of parts of at least each weight, (share + 1,), microseconds."""
        least = self._loads.min(axis=0)
        return np.asarray(np.minimum.accumulate(least[::-1])[::-1])

    def heaviest(self, most_us: float) -> np.ndarray:
        """Find the heaviest part whose load is at most `most_us`, (sub-graphs,) booleans."""
        least = self._loads.min(axis=0)
        weight = int(np.flatnonzero(least <= most_us)[-1])
        row = int(self._loads[:, weight].argmin())
        inside = np.zeros(self._problem.size, dtype=bool)
        for step in reversed(self._history):
            side, row, weight = step.before(row, weight)
            if side is not None:
                inside[step.node] = side == _PART
        return inside

    def _decide(self, node: int) -> None:
        """Put a sub-graph on each side of the part."""
        sides = (_BEFORE, _PART, _AFTER) if self._contiguous else (_BEFORE, _PART)
        found = [self._put(node, side) for side in sides]
        for t in self._problem.consumed[node]:
            self._left[t] -= 1
        kept = [i for i, t in enumerate(self._live) if self._left[t]]
        made = self._problem.produced[node]
        states = [
            np.hstack([one[:, kept], np.full((len(one), len(made)), _MADE[side], dtype=np.int8)])
            for side, (one, _, _) in zip(sides, found, strict=True)
        ]
        self._live = [self._live[i] for i in kept] + list(made)
        before = self._loads
        self._states, self._loads, source = _merged(
            np.concatenate(states), np.concatenate([rows for _, rows, _ in found])
        )
        self._history.append(
            _Step(
                node=node,
                source=source,
                sides=np.repeat(sides, [len(rows) for _, rows, _ in found]),
                rows=np.concatenate([rows for _, _, rows in found]),
                weight=int(self._weights[node]),
                last=before[:, -1 - min(int(self._weights[node]), before.shape[1] - 1) :].argmin(
                    axis=1
                )
                - min(int(self._weights[node]), before.shape[1] - 1),
            )
        )
        self._forget(node)

    def _put(self, node: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return states, loads and former rows with a sub-graph on one side."""
        states, loads = self._states.copy(), self._loads
        allowed = np.ones(len(states), dtype=bool)
        more = np.zeros(len(states))
        for t in self._problem.consumed[node]:
            tensor, column = self._problem.tensors[t], states[:, self._live.index(t)]
            allowed &= _allowed(column, side, self._contiguous)
            if side == _PART:
                new = column == _BEFORE_UNPAID
                more += new * tensor.receive_us[self._class]
                column[new] = _BEFORE_PAID
            else:
                new = column == _PART_UNPAID
                more += new * tensor.send_us[self._class]
                column[new] = _PART_PAID
        states, loads, more = states[allowed], loads[allowed], more[allowed]
        if side == _PART:
            loads = _shifted(loads, int(self._weights[node]))
            more = more + self._problem.compute_us[node, self._class]
        loads = loads + more[:, None]
        loads[loads > self._most_us] = np.inf
        alive = np.isfinite(loads).any(axis=1)
        return states[alive], loads[alive], np.flatnonzero(allowed)[alive]

    def _forget(self, node: int) -> None:
        """Ignore the cheapest live tensors while there are too many states."""
        while len(self._states) > self._most_states:
            costs = [
                self._problem.tensors[t].send_us[self._class]
                + self._problem.tensors[t].receive_us[self._class]
                + (np.inf if (self._states[:, i] == _FREE).all() else 0.0)
                for i, t in enumerate(self._live)
            ]
            self._states[:, int(np.argmin(costs))] = _FREE
            self._states, self._loads, source = _merged(self._states, self._loads)
            self._history.append(_Step(node=node, source=source))


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


def _merged(states: np.ndarray, loads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge equal states; each weight keeps its least load, and the number of its former row."""
    order = np.lexsort(states.T) if states.shape[1] else np.arange(len(states))
    states, loads = states[order], loads[order]
    new = np.concatenate([[True], (states[1:] != states[:-1]).any(axis=1)])
    starts = np.flatnonzero(new)
    least = np.minimum.reduceat(loads, starts, axis=0)
    is_least = loads == least[np.cumsum(new) - 1]
    rows = np.where(is_least, np.arange(len(order), dtype=np.int32)[:, None], len(order) - 1)
    first = np.minimum.reduceat(rows, starts, axis=0)
    return states[starts], least, order[first].astype(np.int32)
