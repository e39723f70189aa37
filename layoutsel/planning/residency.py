"""Mixtures that fit into the memories: which sub-graphs each node keeps, by integer programming.

A node keeps the weights of a sub-graph if it runs it in any placement that takes requests. Given a
pool of placements, a binary variable for each (sub-graph, memory) says so. Sub-graphs that are
together in all placements of the pool share their variables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutsel.planning.loads import LoadTables, Rooms
from layoutsel.planning.local_search import conditional_costs
from layoutsel.planning.placement_pool import Choice, PlacementPool
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.programme import Programme
from layoutsel.planning.tables import Tables

_MOST_PLACEMENTS = 60
"""Maximum number of placements in the integer programme."""
_ROUNDING = 1 + 1e-9
"""Share of a memory that may be occupied, for rounding errors."""
_LEAST_GAP = 1e-4
"""Relative gap at which the integer programme stops."""


class Residency:
    """Memory that placements occupy."""

    def __init__(self, tables: LoadTables, rooms: Rooms) -> None:
        nodes = tables.problem.nodes
        self.memories = sorted({o.memory for node in nodes for o in node.options})
        """Memories of all candidates."""
        number = {memory: i for i, memory in enumerate(self.memories)}
        self.of_option = [np.array([number[o.memory] for o in node.options]) for node in nodes]
        """Memory of each option, by node."""
        self.held = np.array([rooms.held_bytes.get(node.id, 0.0) for node in nodes])
        """Memory that each node occupies, bytes."""
        self.room = np.array([rooms.room_bytes.get(memory, np.inf) for memory in self.memories])
        """Size of each memory, bytes."""

    def of(self, choice: Sequence[int]) -> np.ndarray:
        """Return the memory of each node, (nodes,)."""
        return np.array([of[o] for of, o in zip(self.of_option, choice, strict=True)])

    def fits(self, choice: Sequence[int]) -> bool:
        """True if a placement alone fits."""
        return bool((self._used(choice) <= self.room * _ROUNDING).all())

    def repaired(self, tables: Tables, choice: Sequence[int]) -> Choice | None:
        """Move nodes from full memories to others, at the least cost per byte; None without one."""
        current = list(choice)
        for _ in range(len(current)):
            used = self._used(current)
            over = np.flatnonzero(used > self.room * _ROUNDING)
            if not len(over):
                return tuple(current)
            if not self._relieve(tables, current, used, int(over[0])):
                return None
        return None

    def _used(self, choice: Sequence[int]) -> np.ndarray:
        return np.bincount(self.of(choice), weights=self.held, minlength=len(self.room))

    def _relieve(self, tables: Tables, current: list[int], used: np.ndarray, full: int) -> bool:
        """Move nodes out of a full memory until it fits; False if none can move."""
        homes = self.of(current)
        moves = []
        for node in np.flatnonzero((homes == full) & (self.held > 0)).tolist():
            costs = conditional_costs(tables, current, node)
            extra = costs - costs[current[node]]
            extra[self.of_option[node] == full] = np.inf
            moves += [(us / self.held[node], node, o) for o, us in enumerate(extra)]
        has_moved = False
        moved: set[int] = set()
        for us, node, option in sorted(moves):
            to, size = int(self.of_option[node][option]), self.held[node]
            if used[full] <= self.room[full] * _ROUNDING or not np.isfinite(us):
                break
            if node not in moved and used[to] + size <= self.room[to] * _ROUNDING:
                current[node] = option
                used[full] -= size
                used[to] += size
                moved.add(node)
                has_moved = True
        return has_moved


def fitting(
    pool: PlacementPool, rooms: Rooms, *, bound: float, time_limit_s: float
) -> tuple[list[Choice], np.ndarray]:
    """Find the best mixture of placements of the pool, and of repaired ones, that fits.

    Returns
    -------
    tuple
        Placements, and their rates in requests per microsecond.

    Raises
    ------
    ProblemError
        If no placement was found that fits.
    """
    residency = Residency(pool.tables, rooms)
    priced = pool.tables.weighted(pool.prices * (pool.rows.limit == 0))
    order = np.argsort(-pool.rates, kind="stable").tolist()
    found: dict[Choice, None] = {}
    for p in order[: 2 * _MOST_PLACEMENTS]:
        choice = pool.choices[p]
        kept = choice if residency.fits(choice) else residency.repaired(priced, choice)
        if kept is not None:
            found[kept] = None
    for choice in pool.choices:
        if residency.fits(choice):
            found[choice] = None
    if not found:
        need, have = residency.held.sum(), residency.room.sum()
        raise ProblemError(
            f"no placement was found that fits: the sub-graphs occupy {need / 1e6:,.0f} MB, and "
            f"the memories of {', '.join(residency.memories)} have {have / 1e6:,.0f} MB"
        )
    choices = list(found)
    loads = np.array([pool.tables.loads(choice) for choice in choices])
    own = _own_rates(loads, pool)
    # The best ones alone come first, then those that the linear programme uses.
    used = {pool.choices[p] for p in np.flatnonzero(pool.rates > 0)}
    keys = [(choice not in used, -rate) for choice, rate in zip(choices, own, strict=True)]
    best_alone = int(np.argmax(own))
    kept_numbers = sorted(range(len(choices)), key=keys.__getitem__)[:_MOST_PLACEMENTS]
    kept_numbers = list(dict.fromkeys([best_alone, *kept_numbers]))
    choices, loads, own = [choices[i] for i in kept_numbers], loads[kept_numbers], own[kept_numbers]
    rates = _programme(pool, residency, choices, loads, own, bound, time_limit_s)
    alone = np.where(np.arange(len(own)) == 0, own, 0.0)
    return choices, rates if rates is not None and rates.sum() > alone.sum() else alone


def _own_rates(loads: np.ndarray, pool: PlacementPool) -> np.ndarray:
    """Compute the throughput of each placement alone, requests per microsecond."""
    is_time = pool.rows.limit == 0
    with np.errstate(divide="ignore"):
        return np.asarray((pool.rows.capacity[is_time] / loads[:, is_time]).min(axis=1))


def _programme(
    pool: PlacementPool,
    residency: Residency,
    choices: list[Choice],
    loads: np.ndarray,
    own: np.ndarray,
    bound: float,
    time_limit_s: float,
) -> np.ndarray | None:
    """Solve the integer programme; None without a solution in time."""
    homes = np.array([residency.of(choice) for choice in choices])
    patterns, group_of = np.unique(homes, axis=1, return_inverse=True)
    sizes = np.bincount(group_of.reshape(-1), weights=residency.held)
    programme = Programme()
    # Shares of each placement's own throughput.
    share = programme.variables(-own / bound)
    kept: dict[tuple[int, int], int] = {}
    for group in np.flatnonzero(sizes > 0).tolist():
        for p, memory in enumerate(patterns[:, group].tolist()):
            if np.isfinite(residency.room[memory]):
                if (group, memory) not in kept:
                    kept[group, memory] = programme.variables([0.0], integral=True)
                programme.row([(share + p, 1.0), (kept[group, memory], -1.0)], -np.inf, 0.0)
    for memory in np.flatnonzero(np.isfinite(residency.room)).tolist():
        terms = [
            (v, sizes[g] / residency.room[memory]) for (g, m), v in kept.items() if m == memory
        ]
        if terms:
            programme.row(terms, -np.inf, _ROUNDING)
    for r in np.flatnonzero((pool.rows.limit == 0) & loads.any(axis=0)).tolist():
        terms = [(share + p, own[p] * loads[p, r]) for p in range(len(choices))]
        programme.row(terms, -np.inf, float(pool.rows.capacity[r]))
    found = programme.minimised(time_limit_s=time_limit_s, gap=_LEAST_GAP)
    if found.x is None:
        return None
    return np.maximum(found.x[share : share + len(choices)], 0.0) * own
