"""Times and ceilings of layoutsel's sub-graphs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from tvm.ir import Call

from layoutsel.compile.session import Session
from layoutsel.cost.graph import Subgraph
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.trace import Tracer
from time_by_family.families import LAYOUT, OTHER, family_of
from time_by_family.peers import Node
from tvm_passes.ir import Constant, op_name


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Rates of the machine, in units of 1e9 per second, all threads together."""

    gflops: float
    """Multiply-adds of float32, two operations each."""
    memory_gbps: float
    """Bytes from beyond the caches."""
    cache_gbps: float
    """Bytes within the caches."""

    def ceiling_us(self, subgraph: Subgraph) -> float:
        """Least time of a sub-graph, microseconds.

        Arithmetic, weights from memory and activations within caches may overlap; the longest of
        the three counts.
        """
        weights = sum(4 * prod(weight.shape) for weight in subgraph.weights)
        return max(
            subgraph.flops / self.gflops / 1e3,
            weights / self.memory_gbps / 1e3,
            (subgraph.nbytes - weights) / self.cache_gbps / 1e3,
        )


def families(session: Session) -> dict[str, str]:
    """Family of every sub-graph by id."""
    return {
        subgraph.id: family_of(
            subgraph, has_constant_matrix=_has_constant_matrix(session, subgraph)
        )
        for subgraph in session.graph.subgraphs
    }


def _has_constant_matrix(session: Session, subgraph: Subgraph) -> bool:
    """True if the right-hand operand of the anchor is a parameter for constants."""
    function = session.functions[subgraph.id]
    weights = set(function.params[int(function.attrs["layoutsel.num_activations"]) :])
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, Call) and op_name(call) == subgraph.anchor:
                right = call.args[1] if len(call.args) > 1 else None
                return isinstance(right, Constant) or right in weights
    return False


@dataclass
class Traced:
    """Traced runs of a compiled model."""

    model: CompiledModel
    """The compiled model."""
    tracer: Tracer
    """Runs it with a trace."""
    family: Mapping[str, str]
    """Family of each sub-graph by id."""
    times: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Times of each sub-graph and transform, by name and detail, microseconds."""

    @classmethod
    def of(
        cls, model: CompiledModel, inputs: Sequence[np.ndarray], family: Mapping[str, str]
    ) -> Traced:
        """Prepare the traced runs of `model`."""
        return cls(model, Tracer(model.running, inputs), family)

    def run(self) -> None:
        """Run once with a trace."""
        sums: dict[tuple[str, str], float] = defaultdict(float)
        for event in self.tracer.run()[0]:
            sums[event.name, event.kind] += event.duration_us
        for name, us in sums.items():
            self.times[name].append(us)

    def nodes(self) -> list[Node]:
        """Sub-graphs and transforms with their median times."""
        return [
            Node(
                name,
                self.family.get(name, OTHER) if kind == "subgraph" else LAYOUT,
                statistics.median(found),
            )
            for (name, kind), found in self.times.items()
        ]
