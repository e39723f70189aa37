"""Memory needs and limits of compiling a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from layoutsel.cost.graph import Graph
from tvm_passes.algorithms import algorithm_of
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.precisions import PRECISIONS

WEIGHTS = 3.0
"""Factor of the weights in the default memory limit.

The limit is ``WEIGHTS`` times the bytes of the weights plus ``FURTHER_BYTES``, beyond the memory of
the process before the import.
"""
FURTHER_BYTES = 234 << 20
"""Summand in the default memory limit, bytes; Python, TVM and ONNX take some 245 MB in addition."""
CODE_BYTES = 128 << 20
"""Memory of a plan in addition to its weights, bytes.

The process that generates its code takes most of it, for a few kernels at a time.
"""
_STATUS = Path("/proc/self/statm")
"""File with the memory use of this process."""


def resident_bytes() -> int:
    """Return the resident memory of this process, bytes; 0 if the system does not report it."""
    try:
        pages = int(_STATUS.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """Memory limit of the plans in a race."""

    limit_bytes: int
    """Maximum memory of the whole process, bytes."""
    weights: Mapping[SubgraphId, int]
    """Bytes of the weights of each sub-graph."""

    @classmethod
    def of(cls, graph: Graph, before_bytes: int, limit_mb: float | None = None) -> MemoryBudget:
        """Make the limit of a model.

        Parameters
        ----------
        graph
            Graph of the model.
        before_bytes
            Memory of the process before the import, bytes.
        limit_mb
            Maximum megabytes in addition to `before_bytes`; by default a multiple of the weights.
        """
        weights = {one.id: sum(spec.nbytes for spec in one.weights) for one in graph.subgraphs}
        further = WEIGHTS * sum(weights.values()) + FURTHER_BYTES
        if limit_mb is not None:
            further = 1e6 * limit_mb
        return cls(limit_bytes=int(before_bytes + further), weights=weights)

    def packed_bytes(self, subgraph: SubgraphId, decision: Decision) -> int:
        """Estimate the maximum size of a sub-graph's weights as packed by a decision, bytes."""
        by_algorithm = algorithm_of(decision.algorithm).packed_size
        larger = max(by_algorithm, PRECISIONS.find(decision.precision).larger_weights)
        return int(larger * self.weights[subgraph])

    def has_room(
        self,
        further: Mapping[SubgraphId, int],
        known: Mapping[SubgraphId, int] = MappingProxyType({}),
        plans: int = 1,
    ) -> bool:
        """True if further plans fit into memory.

        Parameters
        ----------
        further
            Bytes of new packed weights, by sub-graph.
        known
            Bytes of packed weights that other plans hold already, by sub-graph. They are packed
            again, which takes memory for a moment, and are then shared.
        plans
            Number of plans.
        """
        passing = [self._passing_bytes(id_, further, known) for id_ in {*further, *known}]
        needed = plans * (CODE_BYTES + max(passing, default=0)) + sum(further.values())
        return resident_bytes() + needed <= self.limit_bytes

    def _passing_bytes(
        self,
        subgraph: SubgraphId,
        further: Mapping[SubgraphId, int],
        known: Mapping[SubgraphId, int],
    ) -> int:
        """Estimate the temporary memory of a sub-graph's weights, bytes.

        Packing needs the source and an existing result; the hand-over needs a second copy.
        """
        packing = self.weights[subgraph] + known.get(subgraph, 0)
        return max(packing, further.get(subgraph, 0))
