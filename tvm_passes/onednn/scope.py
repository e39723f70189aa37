"""Where the emitters of one sub-graph work: its values so far, its layout, its labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from tvm_passes.ir import Constant, Expr, Var, leaves, op_name, static_shape
from tvm_passes.layout import PLAIN, tensor_layout
from tvm_passes.onednn.graph import Graph, Node, Storage, Tensor
from tvm_passes.onednn.plugin import function as plugin_function
from tvm_passes.ports import Ports, read_ports


class Unsupported(Exception):
    """Raised by an emitter; becomes a :class:`~tvm_passes.errors.Decline`."""

    def __init__(self, operator: str, got: str, expected: str) -> None:
        super().__init__(f"{operator}: got {got}; expected {expected}")
        self.operator = operator
        self.got = got
        self.expected = expected


@functools.lru_cache(maxsize=4096)
def implementations(text: str) -> tuple[str, ...]:
    """oneDNN's implementation of each node of a graph in JSON; raises what oneDNN declines."""
    names = plugin_function("layoutsel.onednn.implementations")(text)
    return tuple(str(name) for name in names)


def is_reference(implementation: str) -> bool:
    """Whether an implementation is one of oneDNN's slow, generic ones."""
    return implementation.startswith(("ref", "simple:any"))


Value = Tensor | list[Tensor]
"""What a variable holds: a tensor, or the fields of a tuple."""


@dataclass(eq=False)
class Scope:
    """State of emitting one sub-graph function into `graph`."""

    graph: Graph
    body: relax.Function
    subgraph: str
    layout: str = PLAIN
    dtype: str = "float32"
    """In which activations are stored that the model types float32."""
    splits: bool = False
    """Whether what crosses the sub-graph's boundary is in split storage."""
    halved: Mapping[Expr, Tensor] = field(default_factory=dict)
    """Activations in split storage."""
    implementation: int = 0
    """How many of oneDNN's implementations the anchor skips."""
    values: dict[Var, Value] = field(default_factory=dict)
    done: set[Var] = field(default_factory=set)
    """Variables that a fused primitive computes on the way."""
    operator: str = ""
    """Operator that is being emitted."""

    @functools.cached_property
    def ports(self) -> Ports:
        """The body without the transforms at its ends."""
        return read_ports(self.body)

    @property
    def bindings(self) -> Sequence[relax.VarBinding]:
        """The operators, in order."""
        return self.ports.body

    @functools.cached_property
    def consumers(self) -> dict[Var, list[relax.VarBinding]]:
        """Bindings that read each variable."""
        found: dict[Var, list[relax.VarBinding]] = {}
        for binding in self.bindings:
            for leaf in dict.fromkeys(leaves(binding.value)):
                if isinstance(leaf, Var):
                    found.setdefault(leaf, []).append(binding)
        return found

    @functools.cached_property
    def results(self) -> frozenset[Var]:
        """Variables that the function returns."""
        return frozenset(leaf for leaf in leaves(self.ports.result) if isinstance(leaf, Var))

    def fail(self, got: str, expected: str) -> Unsupported:
        """The error that the operator being emitted is not possible."""
        return Unsupported(self.operator, got, expected)

    # Values

    def tensor(self, expr: Expr) -> Tensor:
        """`expr` as a tensor, in whatever form it lies."""
        if isinstance(expr, Constant):
            return self._constant(expr)
        value = self.values[expr]
        if isinstance(value, list):
            raise self.fail("a tuple operand", "a tensor")
        return value

    def _constant(self, expr: Constant) -> Tensor:
        if str(expr.ty.dtype) != "float32":
            raise self.fail(f"a constant of type {expr.ty.dtype}", "float32")
        array = expr.value.numpy()
        values = tuple(float(item) for item in array.reshape(-1))
        storage = Storage("const", array.nbytes, values=values)
        return Tensor(static_shape(expr.ty), storage)

    def is_weight(self, expr: Expr) -> bool:
        """Whether `expr` is known when the partition is built."""
        return self.tensor(expr).storage.kind == "weight"

    def laid_out(self, tensor: Tensor) -> str:
        """The layout that `tensor` takes in this sub-graph."""
        return tensor_layout(tensor.shape, self.layout)

    def activation(self, expr: Expr) -> Tensor:
        """`expr` as this sub-graph's activations are."""
        return self.conform(self.tensor(expr))

    def conform(self, tensor: Tensor) -> Tensor:
        """`tensor` in this sub-graph's layout and type of elements."""
        return self.convert(tensor, self.laid_out(tensor), self.dtype)

    def plain(self, tensor: Tensor) -> Tensor:
        """`tensor`, row-major and dense."""
        return self.convert(tensor, PLAIN)

    def plain_activation(self, tensor: Tensor) -> Tensor:
        """`tensor`, row-major and dense, in this sub-graph's type of elements."""
        return self.convert(tensor, PLAIN, self.dtype)

    def convert(self, tensor: Tensor, layout: str, dtype: str | None = None) -> Tensor:
        """`tensor` in `layout` and, if given, of another type: itself, renamed, or copied."""
        dtype = dtype or tensor.dtype
        if tensor.dtype == dtype:
            if tensor.layout == layout and tensor.strides is None:
                return tensor
            if tensor.lies_as(layout):
                return tensor.view(tensor.shape, layout)
        copy = self.graph.temp(tensor.shape, layout, dtype)
        self.append("reorder", [tensor], copy)
        return copy

    def temp(self, shape: Sequence[int]) -> Tensor:
        """A new row-major tensor of this sub-graph's type of elements."""
        return self.graph.temp(shape, dtype=self.dtype)

    def result(self, shape: Sequence[int]) -> Tensor:
        """A new tensor in this sub-graph's layout and type of elements."""
        return self.graph.temp(shape, tensor_layout(shape, self.layout), self.dtype)

    def view(
        self, tensor: Tensor, shape: Sequence[int], strides: Sequence[int] | None = None
    ) -> Tensor:
        """Other axes over the elements of a plain tensor."""
        assert strides is not None or tensor.strides is None
        return tensor.view(shape, strides=strides)

    # Nodes

    def node(
        self, op: str, inputs: Sequence[Tensor], output: Tensor, attrs: dict[str, Any] | None = None
    ) -> Node:
        """A node with this sub-graph's labels, not yet part of the graph."""
        return Node(op, self.subgraph, self.operator, list(inputs), output, attrs or {})

    def append(
        self, op: str, inputs: Sequence[Tensor], output: Tensor, attrs: dict[str, Any] | None = None
    ) -> Node:
        """Add a node to the graph."""
        node = self.node(op, inputs, output, attrs)
        self.graph.nodes.append(node)
        return node

    def implementation_of(self, node: Node) -> str | None:
        """oneDNN's implementation of `node`; None where it has none."""
        try:
            return implementations(self.graph.to_json([node]))[0]
        except (RuntimeError, ValueError):
            return None


def scalar(expr: Expr) -> float | None:
    """The number that `expr` is, if it is one."""
    if isinstance(expr, Constant) and math.prod(static_shape(expr.ty)) == 1:
        return float(expr.value.numpy().reshape(-1)[0])
    value = getattr(expr, "value", None)
    return float(value) if isinstance(value, int | float) else None


def operator_of(binding: relax.VarBinding) -> str:
    """Operator of a binding, without its ``relax.`` prefix."""
    return op_name(binding.value)
