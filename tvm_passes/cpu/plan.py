"""Plan of a kernel, as the lowering pass receives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tvm import tirx

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.subgraph import KernelSubgraph, Param
from tvm_passes.layout import physical_dtype, physical_shape
from tvm_passes.tunable import Pack

Emit = Callable[[Mapping[int, Buffer], Buffer], None]
"""Emits a kernel's statements, given the flat buffer of each parameter by index, and the result's.
"""


@dataclass(frozen=True, kw_only=True)
class KernelPlan:
    """Computation of a sub-graph by one PrimFunc.

    The PrimFunc takes the parameters of the sub-graph as they are in memory, some weights packed,
    and then the result.
    """

    subgraph: KernelSubgraph
    """Sub-graph that is computed."""
    emit: Emit
    """Emits the statements."""
    packs: Mapping[int, Pack] = field(default_factory=dict)
    """Packing of each packed weight, by index of the parameter; the others are passed unchanged."""
    packed: Mapping[int, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    """Shape and type of each packed weight."""
    hints: Mapping[str, float] = field(default_factory=dict)
    """Features for cost models: the kernel's name, with value 1, and its blocking."""

    def param_type(self, param: Param) -> tuple[tuple[int, ...], str]:
        """Return the shape and type of a parameter in memory."""
        if param.index in self.packed:
            return self.packed[param.index]
        shape = param.within.shape if param.within else param.shape
        shape = physical_shape(shape, param.layout) or (1,)
        return shape, physical_dtype(param.dtype, param.layout)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape in memory of the result, or of the larger tensor that contains it."""
        within = self.subgraph.within
        shape = within.shape if within else self.subgraph.results[0].shape
        return physical_shape(shape, self.subgraph.out_layouts[0])

    @property
    def result_dtype(self) -> str:
        """Element type of the result in memory."""
        return physical_dtype("float32", self.subgraph.out_layouts[0])

    def prim_func(self) -> tirx.PrimFunc:
        """Generate the code."""
        params = self.subgraph.params
        shapes: list[tuple[Sequence[int], str]] = [self.param_type(param) for param in params]
        shapes.append((self.result_shape, self.result_dtype))

        def body(buffers: list[Buffer]) -> None:
            by_index = {param.index: buffers[i] for i, param in enumerate(params)}
            self.emit(by_index, buffers[-1])

        return emit.prim_func(shapes, body)

    def pack(self, index: int, weights: np.ndarray) -> np.ndarray:
        """Return a weight in the form that the PrimFunc expects."""
        pack = self.packs.get(index)
        return pack(weights) if pack else weights
