"""Local search by single changes of nodes (iterated conditional modes, Besag 1986)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutsel.planning.tables import Tables


def improve(tables: Tables, choice: Sequence[int], *, sweeps: int = 50) -> tuple[int, ...]:
    """Apply the best single changes for at most `sweeps` rounds; the result never costs more."""
    current = list(choice)
    neighbours = _neighbours(tables)
    active = set(range(len(current)))
    for _ in range(sweeps):
        changed = set()
        for node in sorted(active):
            costs = conditional_costs(tables, current, node)
            best = int(np.argmin(costs))
            if costs[best] < costs[current[node]] - 1e-9:
                current[node] = best
                changed.add(node)
        active = {other for node in changed for other in neighbours[node]}
        if not active:
            break
    return tuple(current)


def conditional_costs(tables: Tables, choice: Sequence[int], node: int) -> np.ndarray:
    """Compute the cost of each option of `node` with its boundaries, all else as in `choice`."""
    costs = tables.costs[node].copy()
    for t in tables.produced[node]:
        tensor = tables.tensors[t]
        wanted = np.zeros(len(tensor.group), dtype=bool)
        for consumer, want in tensor.merged.items():
            wanted |= want[choice[consumer]]
        costs += tensor.charge @ wanted
    for t in tables.consumed[node]:
        tensor = tables.tensors[t]
        free = np.zeros(len(tensor.group), dtype=bool)
        for consumer, want in tensor.merged.items():
            if consumer != node:
                free |= want[choice[consumer]]
        row = choice[tensor.producer] if tensor.producer >= 0 else 0
        costs += tensor.merged[node] @ (tensor.charge[row] * ~free)
    return costs


def _neighbours(tables: Tables) -> list[set[int]]:
    """List the nodes that share a tensor with each node."""
    result: list[set[int]] = [set() for _ in tables.costs]
    for tensor in tables.tensors:
        members = {node for node in (tensor.producer, *tensor.consumers) if node >= 0}
        for node in members:
            result[node] |= members - {node}
    return result
