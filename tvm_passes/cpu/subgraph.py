"""Expression graph of a sub-graph function, from which kernels are generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Call, Tuple

from tvm_passes.arrays import array_of
from tvm_passes.cpu.view import Slice, View, is_addressed, shuffled, view
from tvm_passes.decision import Decision
from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import Constant, Expr, Var, op_name, static_shape
from tvm_passes.layout import PLAIN, order_of, storage_of
from tvm_passes.operators import Trait, has_trait
from tvm_passes.ports import Ports, decided_layouts, port_layouts, read_ports
from tvm_passes.shuffle import OPERATORS, shuffle_groups


@dataclass(frozen=True, eq=False)
class Param:
    """A parameter of the sub-graph."""

    index: int
    """Index of the parameter."""
    shape: tuple[int, ...]
    """Logical shape."""
    dtype: str
    """Element type in the model."""
    layout: str
    """Memory layout of the tensor; weights are plain."""
    is_weight: bool
    """True if the parameter is constant when the model is built."""
    constant: np.ndarray | None = None
    """Value of a constant of the body that kernels receive as an additional parameter."""
    within: Slice | None = None
    """Larger tensor that is passed instead, if this parameter is a part of it."""

    @property
    def view(self) -> View:
        """Positions of its elements."""
        return view(self.shape, self.layout, self.within)


@dataclass(frozen=True, eq=False)
class Literal:
    """A constant of the body with one element."""

    array: np.ndarray
    """Value."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the constant."""
        return tuple(self.array.shape)


@dataclass(frozen=True, eq=False)
class OperatorCall:
    """One operator call."""

    operator: str
    """Name without the ``relax.`` prefix."""
    args: tuple[Value, ...]
    """Operands that are tensors."""
    shape: tuple[int, ...]
    """Logical shape of the (single) result."""
    dtype: str
    """Element type of the result."""
    call: Call
    """The Relax call, for its attributes."""

    @property
    def attrs(self) -> Any:
        """The operator's Relax attributes."""
        return self.call.attrs


Value = Param | Literal | OperatorCall
"""A value of the graph."""


@dataclass(frozen=True, eq=False)
class KernelSubgraph:
    """Operators that a kernel computes, with the layouts of its operands and results."""

    name: str
    """Identifier of the sub-graph."""
    anchor: str
    """Anchor operator, without the ``relax.`` prefix."""
    params: tuple[Param, ...]
    """Parameters, activations first."""
    nodes: tuple[OperatorCall, ...]
    """Operators in order of execution, without the transforms at the ports."""
    results: tuple[Value, ...]
    """Results of the sub-graph."""
    out_layouts: tuple[str, ...]
    """Layout of each result."""
    algorithm: str = "direct"
    """Decided algorithm."""
    within: Slice | None = None
    """Larger tensor that contains the (single) result."""
    shuffle: int = 1
    """Groups of the channel shuffle that follows all nodes (see :mod:`tvm_passes.shuffle`)."""

    @property
    def result_view(self) -> View:
        """Positions of the elements of the (single) result."""
        shape = self.results[0].shape
        where = view(shape, self.out_layouts[0], self.within)
        return where if self.shuffle == 1 else shuffled(where, shape[1], self.shuffle)

    @property
    def single(self) -> bool:
        """True if there is exactly one result, and it is computed here."""
        return len(self.results) == 1 and isinstance(self.results[0], OperatorCall)


def is_plain(subgraph: KernelSubgraph) -> bool:
    """Return whether every parameter and result has plain order."""
    return all(order_of(layout) == PLAIN for layout in _layouts(subgraph))


def is_stored(subgraph: KernelSubgraph) -> bool:
    """Return whether any parameter or result is stored in another type than float32."""
    return any(map(storage_of, _layouts(subgraph)))


def _layouts(subgraph: KernelSubgraph) -> list[str]:
    """Return the layouts of all parameters and results."""
    return [*(param.layout for param in subgraph.params), *subgraph.out_layouts]


def as_rows(subgraph: KernelSubgraph) -> KernelSubgraph:
    """Return the same sub-graph with each plain tensor of four dimensions as rows of its last axis.

    ``(N, H, W, C)`` becomes ``(1, N, H, W, C)`` over the same memory: kernels take four dimensions
    as an image, and five as rows. Broadcasting still works axis by axis.
    """

    def rows(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape) if len(shape) == 4 else shape

    return reshaped(subgraph, rows)


def reshaped(
    subgraph: KernelSubgraph, shape_of: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> KernelSubgraph:
    """Return the same sub-graph over the same memory, with shapes converted by `shape_of`."""
    params = {param: replace(param, shape=shape_of(param.shape)) for param in subgraph.params}
    nodes: dict[OperatorCall, OperatorCall] = {}

    def flat(value: Value) -> Value:
        if isinstance(value, Param):
            return params[value]
        return nodes[value] if isinstance(value, OperatorCall) else value

    for node in subgraph.nodes:
        nodes[node] = replace(node, args=tuple(map(flat, node.args)), shape=shape_of(node.shape))
    return replace(
        subgraph,
        params=tuple(params.values()),
        nodes=tuple(nodes.values()),
        results=tuple(map(flat, subgraph.results)),
    )


class _Reader:
    """Reader of a stage-1 or stage-2 function."""

    def __init__(
        self,
        function: relax.Function,
        decision: Decision | None,
        within: Slice | None,
        reads: Mapping[int, Slice],
    ) -> None:
        self.function = function
        self.within = within
        self.reads = reads
        self.num_activations = int(function.attrs["layoutsel.num_activations"])
        if decision is None:
            self.in_layouts, self.out_layouts = decided_layouts(function)
            self.algorithm = str(function.attrs["layoutsel.algorithm"])
        else:
            self.in_layouts, self.out_layouts = port_layouts(function, decision)
            self.algorithm = decision.algorithm
        self.values: dict[Expr, Value] = {}
        self.nodes: list[OperatorCall] = []
        self.hoisted: list[Param] = []

    def params(self, ports: Ports) -> list[Param]:
        """Return the activations, which the body reads as logical values, then the weights."""
        params = []
        for var, index in ports.inputs.items():
            layout = self.in_layouts[index]
            dtype, within = str(var.ty.dtype), self.reads.get(index)
            params.append(
                Param(index, static_shape(var.ty), dtype, layout, is_weight=False, within=within)
            )
            self.values[var] = params[-1]
        for index in range(self.num_activations, len(self.function.params)):
            var = self.function.params[index]
            params.append(Param(index, static_shape(var.ty), str(var.ty.dtype), PLAIN, True))
            self.values[var] = params[-1]
        return params

    def value(self, expr: Expr) -> Value | None:
        if isinstance(expr, Constant):
            return self.constant(expr)
        return self.values.get(expr)

    def constant(self, expr: Constant) -> Value:
        """Return a literal, or an additional parameter for an array."""
        array = array_of(expr)
        if array.size == 1:
            return Literal(array)
        if expr not in self.values:
            index = len(self.function.params) + len(self.hoisted)
            self.hoisted.append(Param(index, array.shape, str(array.dtype), PLAIN, True, array))
            self.values[expr] = self.hoisted[-1]
        return self.values[expr]

    def read_call(self, var: Var, call: Call) -> None:
        operator = op_name(call)
        if has_trait(operator, Trait.QUANTIZES):
            raise UnsupportedModel(f"{operator} has no kernel")
        fields = [f for arg in call.args for f in (arg.fields if isinstance(arg, Tuple) else [arg])]
        args = tuple(value for value in map(self.value, fields) if value is not None)
        if not isinstance(var.ty, relax.TensorType):
            raise UnsupportedModel(f"{operator} has several results")
        node = OperatorCall(operator, args, static_shape(var.ty), str(var.ty.dtype), call)
        self.nodes.append(node)
        self.values[var] = node

    def read(self) -> KernelSubgraph:
        for layout in (*self.in_layouts, *self.out_layouts):
            if not is_addressed(layout):
                raise UnsupportedModel(f"no kernel addresses {layout}")
        ports = read_ports(self.function)
        params = self.params(ports)
        for binding in ports.body:
            value = binding.value
            if isinstance(value, Call):
                self.read_call(binding.var, value)
            elif isinstance(value, Var) and value in self.values:
                self.values[binding.var] = self.values[value]
            else:
                raise UnsupportedModel(f"{type(value).__name__} in a sub-graph")
        result = self.values[ports.result]
        if shuffle := self.shuffle():
            result = self.nodes[-len(OPERATORS)].args[0]
            self.nodes = self.nodes[: -len(OPERATORS)]
        return KernelSubgraph(
            name=str(self.function.attrs["layoutsel.subgraph"]),
            anchor=str(self.function.attrs["layoutsel.anchor"]),
            params=(*params, *self.hoisted),
            nodes=tuple(self.nodes),
            results=(result,),
            out_layouts=self.out_layouts,
            algorithm=self.algorithm,
            within=self.within,
            shuffle=shuffle or 1,
        )

    def shuffle(self) -> int | None:
        """Return the groups of the shuffle that ends a convolution's body; None without one."""
        is_convolution = str(self.function.attrs["layoutsel.anchor"]) == "nn.conv2d"
        behind = self.nodes[-len(OPERATORS) :]
        return shuffle_groups([node.call for node in behind]) if is_convolution else None


def read_subgraph(
    function: relax.Function,
    decision: Decision | None = None,
    within: Slice | None = None,
    reads: Mapping[int, Slice] = MappingProxyType({}),
) -> KernelSubgraph | None:
    """Read the graph of a stage-1 or stage-2 sub-graph function.

    None if kernels do not support the body: several results, control flow, symbolic shapes,
    quantised tensors, layouts that they do not address.

    Parameters
    ----------
    function
        A sub-graph function.
    decision
        Decision for a stage-1 function.
    within
        Larger tensor that contains the result.
    reads
        Larger tensors from which activations are read, by index.
    """
    try:
        return _Reader(function, decision, within, reads).read()
    except (UnsupportedModel, KeyError):
        return None
