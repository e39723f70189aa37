"""How much memory compiling a model may take, and how much it takes."""

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
"""Memory that compiling takes beyond that of the process before it: so many times the model's weights, …"""
FURTHER_BYTES = 234 << 20
"""… and this. Python, TVM and ONNX take some 245 MB before."""
CODE_BYTES = 128 << 20
"""Memory of a plan besides its weights: mostly that of the process which generates its code, a few kernels at a time."""
_STATUS = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory that this process has now; 0 where the system does not tell."""
    try:
        pages = int(_STATUS.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """Memory that plans which are raced with each other may take."""

    limit_bytes: int
    """Most memory of the whole process."""
    weights: Mapping[SubgraphId, int]
    """Bytes of each sub-graph's weights."""

    @classmethod
    def of(cls, graph: Graph, before_bytes: int, limit_mb: float | None = None) -> MemoryBudget:
        """Budget of a model; `limit_mb` beyond the memory `before_bytes` of the process, or the default."""
        weights = {one.id: sum(spec.nbytes for spec in one.weights) for one in graph.subgraphs}
        further = WEIGHTS * sum(weights.values()) + FURTHER_BYTES
        if limit_mb is not None:
            further = 1e6 * limit_mb
        return cls(limit_bytes=int(before_bytes + further), weights=weights)

    def packed_bytes(self, subgraph: SubgraphId, decision: Decision) -> int:
        """Bytes of a sub-graph's weights as a decision packs them, at most."""
        by_algorithm = algorithm_of(decision.algorithm).packed_size
        larger = max(by_algorithm, PRECISIONS.find(decision.precision).larger_weights)
        return int(larger * self.weights[subgraph])

    def has_room(
        self,
        further: Mapping[SubgraphId, int],
        known: Mapping[SubgraphId, int] = MappingProxyType({}),
        plans: int = 1,
    ) -> bool:
        """Whether `plans` fit besides.

        Parameters
        ----------
        further
            Bytes of packed weights that nobody has yet, by sub-graph.
        known
            Bytes of those that lie in memory already: each is packed once more, and recognised.
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
        """Bytes that are taken for a moment: the source and a known result while packing, a second copy while handing over."""
        packing = self.weights[subgraph] + known.get(subgraph, 0)
        return max(packing, further.get(subgraph, 0))
