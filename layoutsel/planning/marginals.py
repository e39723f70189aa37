"""Costs of all other decisions: the best plan with each, where the rest is decided again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from layoutsel.planning.frontier import OutOfSpace, Sweep, automata_of
from layoutsel.planning.local_search import conditional_costs
from layoutsel.planning.ordering import elimination_order
from layoutsel.planning.tables import Tables

_SLACKS = (math.inf, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Relative cost above the best up to which plans are distinguished, tried in this order."""
_MAX_STATES = 20_000
"""Maximum number of partial plans."""


@dataclass(frozen=True, kw_only=True)
class ForcedPlans:
    """Best plan with each option of each node, from two passes over the frontier."""

    costs: list[np.ndarray]
    """Cost of the best plan with each option, per node (options,), microseconds.

    Infinite if it exceeds the range in which the program distinguishes plans, some percentage above
    the best.
    """
    sweep: Sweep
    """Forward pass over the frontier."""
    to_go: list[np.ndarray]
    """Least cost from each partial plan to the end, per position in the order, microseconds."""
    _known: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """Known results of :meth:`_onwards`, as many of the best plans have the same end."""

    def choice(self, node: int, option: int) -> tuple[int, ...]:
        """Return the option of every node in the best plan where `node` takes `option`.

        The cost of that plan must be finite.
        """
        order, transitions = self.sweep.order, self.sweep.transitions
        position = order.index(node)
        step = transitions[position]
        taking = np.flatnonzero(step.choices == option)
        before = self.sweep.forward_costs[position][step.parents[taking]]
        best = taking[np.argmin(before + self._rest(position, taking))]
        chosen = [0] * len(order)
        chosen[node] = option
        row = int(step.parents[best])
        for earlier in range(position - 1, -1, -1):
            parents, choices = self.sweep.history[earlier]
            chosen[order[earlier]] = int(choices[row])
            row = int(parents[row])
        row = int(step.targets[best])
        for later in range(position + 1, len(order)):
            chosen[order[later]], row = self._onwards(later, row)
        return tuple(chosen)

    def _rest(self, position: int, among: np.ndarray) -> np.ndarray:
        step = self.sweep.transitions[position]
        return step.pays[among] + self.to_go[position + 1][step.targets[among]]

    def _onwards(self, position: int, row: int) -> tuple[int, int]:
        """Return the best option from a partial plan, and the resulting partial plan."""
        if (position, row) not in self._known:
            step = self.sweep.transitions[position]
            first, last = np.searchsorted(step.parents, [row, row + 1])
            among = np.arange(first, last)
            best = among[np.argmin(self._rest(position, among))]
            self._known[position, row] = int(step.choices[best]), int(step.targets[best])
        return self._known[position, row]


def forced_plans(
    tables: Tables, best_us: float, *, time_limit_s: float = 10.0
) -> ForcedPlans | None:
    """Find the best plan with each option of each node.

    One forward and one backward pass over the frontier find all of them.

    Parameters
    ----------
    tables
        Problem as numbers.
    best_us
        Cost of its best plan, microseconds.
    time_limit_s
        Time limit, seconds.

    Returns
    -------
    ForcedPlans or None
        None if the network is too wide.
    """
    order = elimination_order(tables)
    deadline = time.monotonic() + time_limit_s
    try:
        automata = automata_of(tables, order, deadline)
    except OutOfSpace:
        return None
    for slack in _SLACKS:
        try:
            sweep = Sweep(
                tables,
                order,
                max_states=_MAX_STATES,
                deadline=deadline,
                slack_us=slack * max(best_us, 1.0),
                automata=automata,
            )
            sweep.run()
        except OutOfSpace:
            continue
        return _backward(tables, sweep)
    return None


def conditional_marginals(
    tables: Tables, choice: tuple[int, ...], best_us: float
) -> list[np.ndarray]:
    """Compute the cost of `choice` with each single option changed, per node (options,).

    They are upper bounds on the costs of :func:`forced_plans`.
    """
    marginals = []
    for node, mine in enumerate(choice):
        costs = conditional_costs(tables, choice, node)
        marginals.append(best_us + costs - costs[mine])
    return marginals


def _backward(tables: Tables, sweep: Sweep) -> ForcedPlans:
    marginals = [np.full(len(costs), np.inf) for costs in tables.costs]
    forward = sweep.forward_costs
    to_go = [np.zeros(len(sweep.costs))]
    for position in range(len(sweep.order) - 1, -1, -1):
        step, node = sweep.transitions[position], sweep.order[position]
        rest = step.pays + to_go[-1][step.targets]
        total = tables.constant + forward[position][step.parents] + rest
        np.minimum.at(marginals[node], step.choices, total)
        to_go.append(np.full(len(forward[position]), np.inf))
        np.minimum.at(to_go[-1], step.parents, rest)
    return ForcedPlans(costs=marginals, sweep=sweep, to_go=to_go[::-1])
