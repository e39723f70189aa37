"""State of the emitters of one sub-graph: its values so far, its layout and its labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import relax

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, Var, leaves, static_shape
from tvm_passes.layout import PLAIN, tensor_layout
from tvm_passes.onednn.graph import (
    PostOp,
    Primitive,
    PrimitiveGraph,
    Quantization,
    Storage,
    StoredTensor,
)
from tvm_passes.onednn.plugin import function as plugin_function
from tvm_passes.onednn.plugin import get_num_threads, limited_to
from tvm_passes.ports import Ports, read_ports
from tvm_passes.targets import kernel_threads


class Unsupported(Exception):
    """An operator that cannot be emitted; becomes a :class:`~tvm_passes.errors.Decline`."""

    def __init__(self, operator: str, got: str, expected: str) -> None:
        super().__init__(f"{operator}: got {got}; expected {expected}")
        self.operator = operator
        self.got = got
        self.expected = expected


INTEGERS = frozenset({"int8", "uint8"})
"""Element types of quantised tensors."""


def implementations(text: str) -> tuple[str, ...]:
    """Return oneDNN's implementation of each node of a graph in JSON; raises oneDNN's errors."""
    return _implementations(text, kernel_threads() or get_num_threads())


@functools.lru_cache(maxsize=4096)
def _implementations(text: str, threads: int) -> tuple[str, ...]:
    with limited_to(threads):
        names = plugin_function("layoutsel.onednn.implementations")(text)
    return tuple(str(name) for name in names)


def is_reference(implementation: str) -> bool:
    """Return whether an implementation is one of oneDNN's slow, generic ones."""
    return implementation.startswith(("ref", "simple:any"))


@dataclass(frozen=True, kw_only=True)
class Integers:
    """Integers that represent the real numbers ``(integer - zero_point) * scale``."""

    source: Expr
    """Tensor of the integers."""
    scale: Expr
    """Constant of one scale, or of one per index of `axis`."""
    zero_point: int
    """Integer that represents zero."""
    axis: int = 0
    """Axis along which the scales differ, if there are several."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Operators that a primitive computes as part of its result."""

    post_ops: tuple[PostOp, ...]
    """Post-ops that compute the operators."""
    var: Var
    """Variable of the last operator."""
    skipped: Sequence[Var] = ()
    """Variables of the operators before the last."""
    dtype: str | None = None
    """Type of the integers that the result is stored as; None if the type stays."""


Value = StoredTensor | list[StoredTensor]
"""Value of a variable: a tensor, or the fields of a tuple."""


@dataclass(eq=False)
class Scope:
    """State of emitting one sub-graph function into `graph`."""

    graph: PrimitiveGraph
    """Graph that receives the primitives."""
    body: relax.Function
    """Sub-graph function."""
    subgraph: str
    """Identifier of the sub-graph."""
    layout: str = PLAIN
    """Order of the sub-graph's activations."""
    dtype: str = "float32"
    """Storage type of the activations that are float32 in the model."""
    splits: bool = False
    """True if the tensors at the sub-graph's boundary are in split storage."""
    halved: Mapping[Expr, StoredTensor] = field(default_factory=dict)
    """Activations in split storage."""
    quantizes: bool = False
    """True if tensors may be integers that represent real numbers."""
    integers: dict[Expr, Integers] = field(default_factory=dict)
    """Integers of dequantised variables; real numbers are computed only for consumers that need
    them.
    """
    implementation: int = 0
    """Number of oneDNN's implementations that the anchor skips."""
    values: dict[Var, Value] = field(default_factory=dict)
    """Tensors of the variables that are already emitted."""
    done: set[Var] = field(default_factory=set)
    """Variables that an emitted primitive computes as well."""
    operator: str = ""
    """Operator that is currently emitted."""
    element: str = "float32"
    """Element type of its result."""

    @functools.cached_property
    def ports(self) -> Ports:
        """The body without the layout transforms at its ends."""
        return read_ports(self.body)

    @property
    def bindings(self) -> Sequence[relax.VarBinding]:
        """The operators, in order."""
        return self.ports.body

    @functools.cached_property
    def consumers(self) -> dict[Var, list[relax.VarBinding]]:
        """Consumers of each variable."""
        found: dict[Var, list[relax.VarBinding]] = {}
        for binding in self.bindings:
            for leaf in dict.fromkeys(leaves(binding.value)):
                if isinstance(leaf, Var):
                    found.setdefault(leaf, []).append(binding)
        return found

    def only_consumer(self, var: Var) -> relax.VarBinding | None:
        """Return the only consumer of `var`; None if there are others, or `var` is a result."""
        consumers = self.consumers.get(var, [])
        return consumers[0] if len(consumers) == 1 and var not in self.results else None

    @functools.cached_property
    def results(self) -> frozenset[Var]:
        """Variables that the function returns."""
        return frozenset(leaf for leaf in leaves(self.ports.result) if isinstance(leaf, Var))

    def fail(self, got: str, expected: str) -> Unsupported:
        """Create the error that the current operator is impossible."""
        return Unsupported(self.operator, got, expected)

    def tensor(self, expr: Expr) -> StoredTensor:
        """Return `expr` as a tensor in its present form."""
        if isinstance(expr, Constant):
            return self._constant(expr)
        if expr not in self.values and expr in self.integers:
            self.values[expr] = self._numbers(self.integers[expr])
        value = self.values[expr]
        if isinstance(value, list):
            raise self.fail("a tuple operand", "a tensor")
        return value

    def known(self, expr: Expr) -> bool:
        """Return whether `expr` is a constant or already emitted."""
        return not isinstance(expr, Var) or expr in self.values or expr in self.integers

    def _numbers(self, integers: Integers) -> StoredTensor:
        """Emit the conversion of integers to real numbers."""
        source = self.tensor(integers.source)
        if source.storage.kind == "weight":
            raise self.fail("integer weights", "a product of integers")
        layout = PLAIN if source.strides else source.layout
        numbers = self.graph.temp(source.shape, layout, self.dtype)
        mask = 0 if scalar(integers.scale) is not None else 1 << integers.axis
        node = self.append("reorder", [source], numbers)
        node.quantized = (self.quantization("src", integers, mask),)
        return numbers

    def quantization(self, operand: str, integers: Integers, mask: int = 0) -> Quantization:
        """Return the meaning of the integers of a primitive's `operand`."""
        scale = self.tensor(integers.scale)
        zero_point = None
        if integers.zero_point:
            values = Storage("const", 4, values=(integers.zero_point,), dtype="int32")
            zero_point = StoredTensor((1,), values, dtype="int32")
        flat = scale.view((math.prod(scale.shape),))
        return Quantization(operand=operand, scale=flat, mask=mask, zero_point=zero_point)

    def _constant(self, expr: Constant) -> StoredTensor:
        """Return a constant of the graph as a tensor."""
        if str(expr.ty.dtype) != "float32":
            raise self.fail(f"a constant of type {expr.ty.dtype}", "float32")
        array = array_of(expr)
        values = tuple(float(item) for item in array.reshape(-1))
        storage = Storage("const", array.nbytes, values=values)
        return StoredTensor(static_shape(expr.ty), storage)

    def is_weight(self, expr: Expr) -> bool:
        """Return whether `expr` is constant when the partition is built."""
        return self.tensor(expr).storage.kind == "weight"

    def laid_out(self, tensor: StoredTensor) -> str:
        """Return the layout of `tensor` in this sub-graph."""
        return tensor_layout(tensor.shape, self.layout)

    def activation(self, expr: Expr) -> StoredTensor:
        """Return `expr` in this sub-graph's layout and element type."""
        return self.conform(self.tensor(expr))

    def conform(self, tensor: StoredTensor) -> StoredTensor:
        """Return `tensor` in this sub-graph's layout and element type."""
        return self.convert(tensor, self.laid_out(tensor), self.stored(tensor.dtype))

    def stored(self, dtype: str) -> str:
        """Return this sub-graph's element type of an activation that the model types `dtype`."""
        return dtype if dtype in INTEGERS else self.dtype

    def plain(self, tensor: StoredTensor) -> StoredTensor:
        """Return `tensor` in dense row-major order."""
        return self.convert(tensor, PLAIN)

    def plain_activation(self, tensor: StoredTensor) -> StoredTensor:
        """Return `tensor` in dense row-major order, with this sub-graph's element type."""
        return self.convert(tensor, PLAIN, self.stored(tensor.dtype))

    def convert(self, tensor: StoredTensor, layout: str, dtype: str | None = None) -> StoredTensor:
        """Return `tensor` in `layout` and, if given, in another type: itself, a view, or a copy."""
        dtype = dtype or tensor.dtype
        if tensor.dtype == dtype:
            if tensor.layout == layout and tensor.strides is None:
                return tensor
            if tensor.lies_as(layout):
                return tensor.view(tensor.shape, layout)
        copy = self.graph.temp(tensor.shape, layout, dtype)
        self.append("reorder", [tensor], copy)
        return copy

    def temp(self, shape: Sequence[int]) -> StoredTensor:
        """Create a row-major tensor for the result of the current operator."""
        return self.graph.temp(shape, dtype=self.stored(self.element))

    def result(self, shape: Sequence[int]) -> StoredTensor:
        """Create a tensor in this sub-graph's layout for the result of the current operator."""
        return self.graph.temp(shape, tensor_layout(shape, self.layout), self.stored(self.element))

    def view(
        self, tensor: StoredTensor, shape: Sequence[int], strides: Sequence[int] | None = None
    ) -> StoredTensor:
        """Return a view with other axes over the elements of a plain tensor."""
        assert strides is not None or tensor.strides is None
        return tensor.view(shape, strides=strides)

    def node(
        self,
        op: str,
        inputs: Sequence[StoredTensor],
        output: StoredTensor,
        attrs: dict[str, Any] | None = None,
    ) -> Primitive:
        """Create a node with this sub-graph's labels; it is not yet part of the graph."""
        return Primitive(op, self.subgraph, self.operator, list(inputs), output, attrs or {})

    def append(
        self,
        op: str,
        inputs: Sequence[StoredTensor],
        output: StoredTensor,
        attrs: dict[str, Any] | None = None,
    ) -> Primitive:
        """Create a node and add it to the graph."""
        node = self.node(op, inputs, output, attrs)
        self.graph.nodes.append(node)
        return node

    def implementation_of(self, node: Primitive) -> str | None:
        """Return the name of oneDNN's implementation of `node`, or None."""
        try:
            return implementations(self.graph.to_json([node]))[0]
        except (RuntimeError, ValueError):
            return None


def scalar(expr: Expr) -> float | None:
    """Return the number that `expr` represents, or None."""
    if isinstance(expr, Constant) and math.prod(static_shape(expr.ty)) == 1:
        return float(array_of(expr).reshape(-1)[0])
    value = getattr(expr, "value", None)
    return float(value) if isinstance(value, int | float) else None
