"""Dead-end elimination: options are dropped if another one is better for any choice of neighbours.

Goldstein's criterion (Goldstein 1994): option b of a node is dead if some option a satisfies
``cost[a] + worst(a over b) < cost[b]``, where `worst` is the maximum excess of a's boundary prices
over b's, for all choices of the neighbours. At least one best choice survives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from layoutsel.planning.tables import Tables, TensorTable, restrict_tables

_MARGIN_US = 1e-9
"""Minimum difference of a dead option, microseconds; equal options both survive."""
_ENTRIES = 1 << 24
"""Maximum number of entries of an array that compares the options of a node; 128 MB."""


def eliminate_dead_ends(
    tables: Tables, *, rounds: int = 5, deadline: float = math.inf
) -> list[np.ndarray]:
    """Find the options of each node that may be in a best choice, for :func:`restrict_tables`.

    Options stay if the deadline passes before they are examined.

    Parameters
    ----------
    tables
        Problem as numbers.
    rounds
        Maximum number of rounds.
    deadline
        Deadline by :func:`time.monotonic`, seconds.
    """
    kept = [np.arange(len(costs)) for costs in tables.costs]
    current, dirty = tables, set(range(len(kept)))
    for _ in range(rounds):
        alive = {node: _alive(current, node) for node in dirty if time.monotonic() < deadline}
        changed = {node for node, mask in alive.items() if not mask.all()}
        if not changed:
            break
        local = [
            np.flatnonzero(alive[node]) if node in changed else np.arange(len(kept[node]))
            for node in range(len(kept))
        ]
        kept = [keep[index] for keep, index in zip(kept, local, strict=True)]
        current = restrict_tables(current, local)
        dirty = {other for node in changed for other in _around(tables, node)}
    return kept


def worst_extra(states: np.ndarray, wants: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the maximum excess of charges ``states[B]`` over ``states[A]``, (B, A).

    Parameters
    ----------
    states
        Price of each label, (states, labels).
    wants
        Wanted labels per consumer, (options, labels) booleans.
    """
    more = states[:, None, :] - states[None, :, :]
    if len(wants) == 1:
        return np.asarray((more @ wants[0].T).max(axis=2))
    positive = np.maximum(more, 0.0)
    by_label = positive @ np.any([want.any(axis=0) for want in wants], axis=0)
    by_consumer = sum((positive @ want.T).max(axis=2) for want in wants)
    return np.minimum(by_label, by_consumer)


def _alive(tables: Tables, node: int) -> np.ndarray:
    costs = tables.costs[node]
    if len(costs) == 1 or _entries(tables, node) > _ENTRIES:
        return np.ones(len(costs), dtype=bool)
    extra = np.zeros((len(costs), len(costs)))
    for t in tables.produced[node]:
        tensor = tables.tensors[t]
        extra += worst_extra(tensor.charge, list(tensor.merged.values()))
    for t in tables.consumed[node]:
        extra += _worst_use(tables.tensors[t], node)
    dead = costs[:, None] + extra + _MARGIN_US < costs[None, :]
    return ~np.asarray(dead.any(axis=0))


def _entries(tables: Tables, node: int) -> int:
    """Compute the size of the largest array that compares the options of a node, entries."""
    sizes = [
        max(len(tensor.group), len(tensor.charge), *map(len, tensor.wants))
        for tensor in (tables.tensors[t] for t in (*tables.produced[node], *tables.consumed[node]))
    ]
    return len(tables.costs[node]) ** 2 * max(sizes, default=0)


def _worst_use(tensor: TensorTable, node: int) -> np.ndarray:
    """Bound the excess of using the tensor as option a over option b, (a, b), microseconds."""
    want = tensor.merged[node].astype(float)
    more = want[:, None, :] - want[None, :, :]
    if len(tensor.merged) > 1:  # other consumers may pay for the labels of b
        more = np.maximum(more, 0.0)
    return np.asarray((more @ tensor.charge.T).max(axis=2))


def _around(tables: Tables, node: int) -> set[int]:
    """Collect `node` and the nodes that share a tensor with it."""
    touched = [tables.tensors[t] for t in (*tables.produced[node], *tables.consumed[node])]
    return {n for t in touched for n in (t.producer, *t.consumers) if n >= 0} | {node}
