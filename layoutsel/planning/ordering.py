"""Orders of the nodes in which few tensors are live at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutsel.planning.tables import Tables


def elimination_order(tables: Tables) -> list[int]:
    """Find a topological order with a narrow frontier: the narrowest of three simple ones."""
    candidates = [
        list(range(len(tables.costs))),
        _greedy_order(tables),
        _depth_first_order(tables),
    ]
    return min(candidates, key=lambda order: _width(tables, order))


def _greedy_order(tables: Tables) -> list[int]:
    """Order by the fewest live tensors after each node; of equal nodes, the newest comes first."""
    waiting = [sum(tables.tensors[t].producer >= 0 for t in c) for c in tables.consumed]
    left = [len(t.merged) for t in tables.tensors]
    ready = {node: 0 for node, count in enumerate(waiting) if count == 0}
    order: list[int] = []
    while ready:

        def growth(node: int) -> tuple[int, int]:
            closed = sum(left[t] == 1 for t in tables.consumed[node])
            return len(tables.produced[node]) - closed, -ready[node]

        node = min(ready, key=growth)
        del ready[node]
        order.append(node)
        for t in tables.consumed[node]:
            left[t] -= 1
        for follower in _followers(tables, node):
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready[follower] = len(order)
    return order


def _depth_first_order(tables: Tables) -> list[int]:
    """Order by reverse postorder from the nodes without followers: one branch after another."""
    order: list[int] = []
    seen: set[int] = set()
    sinks = [n for n in range(len(tables.costs)) if not tables.produced[n]]
    for sink in [*sinks, *range(len(tables.costs))]:
        stack = [(sink, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                producers = [tables.tensors[t].producer for t in tables.consumed[node]]
                stack += [(p, False) for p in sorted(producers) if p >= 0 and p not in seen]
    return order


def _followers(tables: Tables, node: int) -> list[int]:
    return [f for t in tables.produced[node] for f in tables.tensors[t].merged]


def _width(tables: Tables, order: Sequence[int]) -> float:
    """Compute the total size of the frontier, in bounds on the number of partial plans."""
    left = [len(t.merged) for t in tables.tensors]
    sizes = [np.log2(1 + len(np.unique(t.charge, axis=0))) for t in tables.tensors]
    live = {t for t, table in enumerate(tables.tensors) if table.producer < 0}
    total = 0.0
    for node in order:
        for t in tables.consumed[node]:
            left[t] -= 1
            if left[t] == 0:
                live.discard(t)
        live.update(tables.produced[node])
        total += 2.0 ** min(sum(sizes[t] for t in live), 500.0)
    return total
