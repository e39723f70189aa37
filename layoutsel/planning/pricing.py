"""Cheapest placements for given prices of resources, with a lower bound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.dual_bound import MOST_LABELS, ascend
from layoutsel.planning.frontier import OutOfSpace, Sweep
from layoutsel.planning.loads import LoadTables
from layoutsel.planning.local_search import improve
from layoutsel.planning.ordering import elimination_order
from layoutsel.planning.tables import Tables, restrict_tables

_PATIENCE, _LEAST_S = 0.1, 0.2
"""Share of the time left for one answer, and its minimum in seconds."""
_FEW_LABELS = 4
"""Maximum number of priced labels in quick bounds, which find most of the prices."""
_MOST_STATES = 20_000
"""Maximum number of partial plans of a sweep."""


@dataclass(frozen=True, kw_only=True)
class PricedPlacement:
    """A placement of little priced load, and a bound on all placements."""

    choice: tuple[int, ...]
    """Option of each node."""
    bound_us: float
    """Proven lower bound on the priced load of all placements."""


class Pricer:
    """Solver for many prices of the resources of one problem."""

    def __init__(self, tables: LoadTables) -> None:
        self._tables = tables
        self._order: list[int] | None = None
        self._is_wide = False
        self._most_labels = _FEW_LABELS

    def refine(self) -> bool:
        """Bound more tightly from now on; False if it does already, or answers are exact."""
        can_refine = self._is_wide and self._most_labels < MOST_LABELS
        self._most_labels = MOST_LABELS
        return can_refine

    def cheapest(self, prices: np.ndarray, *, deadline: float) -> PricedPlacement:
        """Find a placement of least priced load; the best one if the network is narrow enough."""
        tables = self._tables.weighted(prices)
        now = time.monotonic()
        patience = max(_PATIENCE * (deadline - now), min(_LEAST_S, deadline - now))
        found = self._exact(tables, now + patience)
        return found or self._by_dual(tables, min(time.monotonic() + patience, deadline))

    def alone(self) -> Iterator[tuple[int, ...]]:
        """Yield a placement for each memory that runs as much as possible there."""
        nodes = self._tables.problem.nodes
        memories = sorted({option.memory for node in nodes for option in node.options})
        tables = self._tables.weighted(np.ones(len(self._tables.resources)))
        for memory in memories:
            kept = [
                np.array([i for i, o in enumerate(n.options) if o.memory == memory]) for n in nodes
            ]
            kept = [
                keep if len(keep) else np.arange(len(node.options))
                for keep, node in zip(kept, nodes, strict=True)
            ]
            narrowed = restrict_tables(tables, kept)
            choice = improve(narrowed, [int(np.argmin(costs)) for costs in narrowed.costs])
            yield tuple(int(keep[option]) for keep, option in zip(kept, choice, strict=True))

    def _exact(self, tables: Tables, deadline: float) -> PricedPlacement | None:
        """Solve by dynamic programming; None if the network is too wide."""
        if self._is_wide:
            return None
        if self._order is None:
            self._order = elimination_order(tables)
        try:
            sweep = Sweep(tables, self._order, max_states=_MOST_STATES, deadline=deadline)
            choice = sweep.run().choice
        except OutOfSpace:
            self._is_wide = True  # other prices would take as long
            return None
        return PricedPlacement(choice=choice, bound_us=tables.total(choice))

    def _by_dual(self, tables: Tables, deadline: float) -> PricedPlacement:
        found = ascend(tables, deadline=deadline, most_labels=self._most_labels)
        return PricedPlacement(choice=found.choice, bound_us=found.bound_us)
