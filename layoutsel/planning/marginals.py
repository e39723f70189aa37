"""What every other decision would cost: the best plan that takes it, the rest decided anew around it."""

from __future__ import annotations

import math
import time

import numpy as np

from layoutsel.planning.frontier import OutOfSpace, Sweep
from layoutsel.planning.local_search import conditional_costs
from layoutsel.planning.ordering import elimination_order
from layoutsel.planning.tables import Tables

_SLACKS = (math.inf, 1.0, 0.3, 0.1, 0.03, 0.01)
"""How much worse than the best, relative to it, plans may be to be told apart; tried in this order."""
_MAX_STATES = 20_000


def min_marginals(
    tables: Tables, best_us: float, *, time_limit_s: float = 10.0
) -> list[np.ndarray] | None:
    """Per node and option, the cost of the best plan with that option, microseconds.

    Infinite where that is more than the program could tell apart, which is some percentage above the best. One
    forward and one backward pass over the frontier answer for all options at once.

    Parameters
    ----------
    tables
        The problem.
    best_us
        Cost of its best plan.
    time_limit_s
        Seconds to try for.

    Returns
    -------
    marginals or None
        None where the network is too wide.
    """
    order = elimination_order(tables)
    deadline = time.monotonic() + time_limit_s
    for slack in _SLACKS:
        sweep = Sweep(
            tables,
            order,
            max_states=_MAX_STATES,
            deadline=deadline,
            slack_us=slack * max(best_us, 1.0),
        )
        try:
            sweep.run()
        except OutOfSpace:
            continue
        return _backward(tables, sweep)
    return None


def conditional_marginals(
    tables: Tables, choice: tuple[int, ...], best_us: float
) -> list[np.ndarray]:
    """Upper bounds of :func:`min_marginals`: the cost with one option changed, all else as in `choice`."""
    marginals = []
    for node, mine in enumerate(choice):
        costs = conditional_costs(tables, choice, node)
        marginals.append(best_us + costs - costs[mine])
    return marginals


def _backward(tables: Tables, sweep: Sweep) -> list[np.ndarray]:
    marginals = [np.full(len(costs), np.inf) for costs in tables.costs]
    forward = sweep.forward_costs
    to_go = np.zeros(len(sweep.costs))
    for position in range(len(sweep.order) - 1, -1, -1):
        step, node = sweep.transitions[position], sweep.order[position]
        rest = step.pays + to_go[step.targets]
        total = tables.constant + forward[position][step.parents] + rest
        np.minimum.at(marginals[node], step.choices, total)
        to_go = np.full(len(forward[position]), np.inf)
        np.minimum.at(to_go, step.parents, rest)
    return marginals
