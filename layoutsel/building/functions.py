"""Code of a graph's sub-graphs, apart from the graph; only building, tuning and units open it.

Others pass :class:`Functions` on, and ask it about single sub-graphs by id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import relax

from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline
from tvm_passes.ports import port_layouts
from tvm_passes.rewrite_layouts import functions_of
from tvm_passes.units.entry import Backend


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

    def ports(self, id_: SubgraphId, decision: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layouts of a sub-graph's activation inputs and outputs under a decision."""
        return port_layouts(self[id_], decision)

    def decline(self, id_: SubgraphId, decision: Decision, backend: Backend) -> Decline | None:
        """Return the reason why the decision's back end cannot run it; None if it can."""
        return backend.supports(self[id_], decision)

    def generic(self, id_: SubgraphId, decision: Decision, backend: Backend) -> Decline | None:
        """Return the reason why a supported decision gets generic code; None if it does not."""
        return backend.generic(self[id_], decision)

    def hints(self, id_: SubgraphId, decision: Decision, backend: Backend) -> Mapping[str, float]:
        """Return facts for cost models about the code of a supported decision, by name."""
        return backend.hints(self[id_], decision)

    def record(self, id_: SubgraphId, decision: Decision, backend: Backend) -> str:
        """Return the tuning record that a supported decision uses; empty without one."""
        return backend.record(self[id_], decision)

    def document(self, id_: SubgraphId) -> str:
        """Return the function of a sub-graph as JSON, for another process."""
        return tvm.ir.save_json(self[id_])
