"""Lower bound on the sum of costs: block coordinate ascent on the dual of the linear relaxation.

It can stop at any time with a valid bound.

Max-product linear programming (Globerson, Jaakkola, "Fixing max-product", NIPS 2007) with a tensor
and all its users as one factor. No update lowers the bound. The nodes' final beliefs are rounded to
a choice.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.local_search import improve
from layoutsel.planning.tables import GROUPS, Tables, TensorTable

_SETTLED = 1e-6
"""Minimum relative rise of the bound in a sweep that continues the ascent."""
MOST_LABELS = 8
"""Maximum number of priced labels per group; boundaries of tensors with more count as free."""
_MOST_ENTRIES = 1 << 18
"""Maximum number of options times sets of labels; boundaries of larger tensors count as free."""


@dataclass(frozen=True, kw_only=True)
class DualBound:
    """Dual bound, with the best choice found during the ascent."""

    bound_us: float
    """Proven lower bound, microseconds."""
    choice: tuple[int, ...]
    """Option of each node."""
    raises_us: tuple[np.ndarray, ...]
    """Rise of the bound if an option is forced, per node (options,), microseconds."""


@dataclass(frozen=True, kw_only=True)
class _Factor:
    """A tensor with its consumers; columns are the sets of labels that may be paid for."""

    producer: int
    """Index of the producing node; -1 for an input of the model."""
    charge: np.ndarray
    """Price of all labels of a set, (producer options, sets), microseconds."""
    consumers: tuple[int, ...]
    """Indices of the consuming nodes."""
    barred: tuple[np.ndarray, ...]
    """Infinity where a set lacks a label that the option wants, per consumer (options, sets)."""


def ascend(
    tables: Tables, *, deadline: float, sweeps: int = 1000, most_labels: int = MOST_LABELS
) -> DualBound:
    """Raise the bound until it settles, or for at most `sweeps` sweeps, or until a deadline.

    Parameters
    ----------
    tables
        Problem as numbers.
    deadline
        Deadline by :func:`time.monotonic`, seconds.
    sweeps
        Maximum number of sweeps.
    most_labels
        Maximum number of priced labels per group; boundaries of tensors with more count as free.
    """
    factors = [_prepare(t) for t in tables.tensors if _is_small(t, most_labels)]
    beliefs = [costs.astype(float).copy() for costs in tables.costs]
    messages = [
        {node: np.zeros(len(tables.costs[node])) for node in _members(factor)} for factor in factors
    ]
    bound = best_bound = _bound(tables, factors, beliefs, messages)
    best_choice = improve(tables, _greedy(beliefs))
    for done in range(1, sweeps + 1):
        order = range(len(factors)) if done % 2 else reversed(range(len(factors)))
        for f in order:
            _update(factors[f], beliefs, messages[f])
        bound = _bound(tables, factors, beliefs, messages)
        settled = bound - best_bound < _SETTLED * abs(bound)
        best_bound = max(best_bound, bound)
        late = time.monotonic() > deadline
        if done % 10 == 0 or settled or late:
            rounded = improve(tables, _greedy(beliefs))
            best_choice = min(best_choice, rounded, key=tables.total)
        if settled or late:
            break
    raises = _raises(factors, beliefs, messages)
    below = bound - best_bound  # rounding errors may have lowered the bound in the last sweep
    return DualBound(
        bound_us=best_bound, choice=best_choice, raises_us=tuple(r + below for r in raises)
    )


def _update(factor: _Factor, beliefs: list[np.ndarray], messages: dict[int, np.ndarray]) -> None:
    """Divide the factor's min-marginals equally among its nodes."""
    members = _members(factor)
    for node in members:
        beliefs[node] -= messages[node]
    marginals = _marginals(factor, beliefs)
    for node in members:
        messages[node] = marginals[node] / len(members) - beliefs[node]
        beliefs[node] = marginals[node] / len(members)


def _marginals(
    factor: _Factor, beliefs: Sequence[np.ndarray] | Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Compute the least sum of the factor and its nodes' beliefs, per node and option."""
    reach = [beliefs[c][:, None] + b for c, b in zip(factor.consumers, factor.barred, strict=True)]
    least = [r.min(axis=0) for r in reach]
    together = np.sum(least, axis=0)
    rows = factor.charge
    if factor.producer >= 0:
        rows = rows + beliefs[factor.producer][:, None]
    by_set = rows.min(axis=0)
    marginals = {
        consumer: (reach[i] + (by_set + (together - least[i]))).min(axis=1)
        for i, consumer in enumerate(factor.consumers)
    }
    if factor.producer >= 0:
        marginals[factor.producer] = (rows + together).min(axis=1)
    return marginals


def _bound(
    tables: Tables,
    factors: list[_Factor],
    beliefs: list[np.ndarray],
    messages: list[dict[int, np.ndarray]],
) -> float:
    """Compute the dual's value: the sum of the nodes' and the factors' own minima."""
    total = tables.constant + sum(belief.min() for belief in beliefs)
    for factor, message in zip(factors, messages, strict=True):
        negative = {node: -values for node, values in message.items()}
        some = factor.consumers[0]
        total += _marginals(factor, negative)[some].min()
    return float(total)


def _raises(
    factors: list[_Factor], beliefs: list[np.ndarray], messages: list[dict[int, np.ndarray]]
) -> list[np.ndarray]:
    """Compute the rise of the minima of a node and its factors if an option is forced."""
    raises = [belief - belief.min() for belief in beliefs]
    for factor, message in zip(factors, messages, strict=True):
        negative = {node: -values for node, values in message.items()}
        for node, marginals in _marginals(factor, negative).items():
            raises[node] += marginals - marginals.min()
    return raises


def _prepare(tensor: TensorTable) -> _Factor:
    groups = [np.flatnonzero(tensor.group == group) for group in range(GROUPS)]
    subsets = [_subsets(_priced(tensor)[group]) for group in groups]
    paid = np.array(
        [np.concatenate(pair) for pair in itertools.product(*subsets)], dtype=bool
    )  # (sets, labels): labels of group 0 come first
    columns = np.concatenate(groups)
    barred = [
        np.where((want[:, columns][:, None, :] & ~paid[None]).any(axis=2), np.inf, 0.0)
        for want in tensor.merged.values()
    ]
    useful = np.all([bar.min(axis=0) == 0.0 for bar in barred], axis=0)
    return _Factor(
        producer=tensor.producer,
        charge=tensor.charge[:, columns] @ paid[useful].T,
        consumers=tuple(tensor.merged),
        barred=tuple(bar[:, useful] for bar in barred),
    )


def _priced(tensor: TensorTable) -> np.ndarray:
    """Return which labels have a price, (labels,) booleans."""
    return np.asarray((tensor.charge != 0).any(axis=0))


def _subsets(priced: np.ndarray) -> list[np.ndarray]:
    """List all non-empty sets of labels, as booleans; labels without a price are in all of them."""
    choices = [(False, True) if one else (True,) for one in priced]
    return [np.array(bits) for bits in itertools.product(*choices) if any(bits)]


def _is_small(tensor: TensorTable, most_labels: int) -> bool:
    priced = _priced(tensor)
    counts = [int(priced[tensor.group == group].sum()) for group in range(GROUPS)]
    options = max(len(tensor.charge), *map(len, tensor.wants))
    return max(counts) <= most_labels and options << sum(counts) <= _MOST_ENTRIES


def _members(factor: _Factor) -> tuple[int, ...]:
    return (factor.producer, *factor.consumers) if factor.producer >= 0 else factor.consumers


def _greedy(beliefs: Sequence[np.ndarray]) -> tuple[int, ...]:
    return tuple(int(np.argmin(belief)) for belief in beliefs)
