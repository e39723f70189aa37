"""Code of a graph's sub-graphs, apart from the graph; only building and units use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import relax

from tvm_passes.decision import SubgraphId
from tvm_passes.rewrite_layouts import functions_of


@dataclass(frozen=True, eq=False)
class Functions(Mapping[SubgraphId, relax.Function]):
    """Relax function of each sub-graph, by id."""

    module: tvm.IRModule
    """Partitioned module; its `main` calls the functions of the sub-graphs."""

    @cached_property
    def _by_id(self) -> Mapping[SubgraphId, relax.Function]:
        return functions_of(self.module)

    def __getitem__(self, id_: SubgraphId) -> relax.Function:
        return self._by_id[id_]

    def __iter__(self) -> Iterator[SubgraphId]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)
