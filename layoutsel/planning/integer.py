"""Integer programming with HiGHS: exact if the time suffices, else a plan with a proven bound.

The relaxation is the local polytope (Sontag, Globerson, Jaakkola 2011) per use of a tensor and
label group; see :mod:`layoutsel.planning.tables`. Options of the producer with equal prices form a
source class. All uses share one variable per (tensor, source class, label), so that a shared
transform costs once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.programme import Programme
from layoutsel.planning.tables import GROUPS, Tables, TensorTable

_MOST_VARIABLES = 100_000
"""Maximum number of variables of a programme.

With as many, HiGHS takes a few hundred MB, and still checks the time limit often.
"""


@dataclass(frozen=True, kw_only=True)
class IntegerResult:
    """Result of branch and bound."""

    choice: tuple[int, ...] | None
    """Option of each node; None without a plan in time, or if the programme is too large."""
    bound_us: float
    """Proven lower bound, microseconds; minus infinity without one."""


def solve_integer(tables: Tables, *, time_limit_s: float, gap: float = 0.0) -> IntegerResult:
    """Choose an option for every node at the least cost, by branch and bound.

    A programme of more than :data:`_MOST_VARIABLES` variables is not tried.

    Parameters
    ----------
    tables
        Problem as numbers.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    if _variables(tables) > _MOST_VARIABLES:
        return IntegerResult(choice=None, bound_us=-np.inf)
    programme = _LocalPolytope(tables)
    result = programme.minimised(time_limit_s=time_limit_s, gap=gap)
    bound = result.mip_dual_bound
    bound_us = -np.inf if bound is None else float(bound) + tables.constant
    if result.x is None:
        return IntegerResult(choice=None, bound_us=bound_us)
    choice = tuple(int(np.argmax(part)) for part in programme.parts(result.x))
    return IntegerResult(choice=choice, bound_us=bound_us)


def _variables(tables: Tables) -> int:
    """Compute an upper bound on the number of variables of :class:`_LocalPolytope`."""
    count = sum(map(len, tables.costs))
    for tensor, group in itertools.product(tables.tensors, range(GROUPS)):
        charge = tensor.charge[:, tensor.group == group]
        count += (1 + len(tensor.wants)) * np.unique(charge, axis=0).size
    return count


class _LocalPolytope(Programme):
    """Integer programme of a problem."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.first = [self.variables(costs, integral=True) for costs in tables.costs]
        for first, costs in zip(self.first, tables.costs, strict=True):
            self.row([(first + o, 1.0) for o in range(len(costs))], 1.0, 1.0)
        for tensor, group in itertools.product(tables.tensors, range(GROUPS)):
            self._tensor(tensor, np.flatnonzero(tensor.group == group))
        self.sizes = [len(costs) for costs in tables.costs]

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the part of `values` (one per variable) that belongs to each node's options."""
        return [values[f : f + size] for f, size in zip(self.first, self.sizes, strict=True)]

    def _tensor(self, tensor: TensorTable, labels: np.ndarray) -> None:
        """Add one label group of a tensor: shared payments, and a flow for each use."""
        charge, classes = np.unique(tensor.charge[:, labels], axis=0, return_inverse=True)
        classes = classes.reshape(-1)
        used = [w for w in tensor.wants if (charge[:, w[:, labels].any(axis=0)] > 0).any()]
        if not used:
            return
        shared = len(tensor.wants) > 1
        paid = self.variables(charge.reshape(-1)) if shared else -1
        for consumer, want in zip(tensor.consumers, tensor.wants, strict=True):
            flow = self.variables(np.zeros(charge.size) if shared else charge.reshape(-1))
            self._marginals(tensor, flow, classes, consumer, want[:, labels])
            for k in range(charge.size) if shared else ():
                self.row([(paid + k, 1.0), (flow + k, -1.0)], 0.0, np.inf)

    def _marginals(
        self, tensor: TensorTable, flow: int, classes: np.ndarray, consumer: int, want: np.ndarray
    ) -> None:
        """Tie the (source class, label) flow of one use to the options of producer and consumer."""
        sources, labels = int(classes.max()) + 1, want.shape[1]
        for k in range(sources):
            terms = [(flow + k * labels + label, 1.0) for label in range(labels)]
            if tensor.producer < 0:
                self.row(terms, 1.0, 1.0)
                continue
            chosen = np.flatnonzero(classes == k) + self.first[tensor.producer]
            self.row(terms + [(int(x), -1.0) for x in chosen], 0.0, 0.0)
        for label in range(labels):
            terms = [(flow + k * labels + label, 1.0) for k in range(sources)]
            chosen = np.flatnonzero(want[:, label]) + self.first[consumer]
            self.row(terms + [(int(x), -1.0) for x in chosen], 0.0, 0.0)
