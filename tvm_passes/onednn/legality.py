"""Legality of decisions for oneDNN, asked of oneDNN itself without building anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from tvm_passes.arrays import array_of
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.ir import Constant, is_tensor, leaves, main_bindings, op_name, static_shape
from tvm_passes.layout import LARGEST_BF16, order_of
from tvm_passes.onednn.graph import Primitive, PrimitiveGraph, Storage, StoredTensor
from tvm_passes.onednn.halves import doubled
from tvm_passes.onednn.plugin import available
from tvm_passes.onednn.scope import INTEGERS, Scope, Unsupported, implementations, is_reference
from tvm_passes.onednn.subgraph import emit, make_scope
from tvm_passes.ports import port_layouts
from tvm_passes.precisions import PRECISIONS

_NEEDS_SPEED = frozenset({"convolution", "deconvolution", "matmul", "pooling"})
"""Primitives that are useless in a reference implementation."""

_COPIES = frozenset({"concat", "reorder"})
"""Primitives whose generic implementations are fast enough, because they only copy."""


def supports(function: relax.Function, decision: Decision) -> Decline | None:
    """Return the reason why `decision` is impossible for a stage-1 sub-graph function, or None."""
    attrs = function.attrs
    anchor = str(attrs["layoutsel.anchor"])
    subgraph = str(attrs["layoutsel.subgraph"])

    def decline(operator: str, got: str, expected: str) -> Decline:
        return Decline(
            subgraph=subgraph,
            operator=operator,
            decision=str(decision),
            got=got,
            expected=expected,
        )

    reason = available()
    if reason is not None:
        return decline(anchor, reason, "the oneDNN plugin")
    known = PRECISIONS.get(decision.precision)
    if known and known.storage and (number := _beyond_bfloat16(function)):
        return decline(anchor, f"the number {number:g}", f"at most {LARGEST_BF16:.3g} in bfloat16")
    try:
        graph = subgraph_graph(function, decision)
    except Unsupported as error:
        return decline(error.operator, error.got, error.expected)
    try:
        names = implementations(graph.to_json()) if graph.nodes else ()
    except (RuntimeError, ValueError) as error:
        return decline(anchor, _first_line(error), "a primitive of oneDNN")
    for node, name in zip(graph.nodes, names, strict=True):
        if (_needs_speed(node) and is_reference(name)) or _crawls(node, name):
            return decline(node.operator, f"implementation {name}", "an optimised implementation")
    return None


def _beyond_bfloat16(function: relax.Function) -> float:
    """Return a finite number of a body that would be infinite in bfloat16; 0 if there is none."""
    found = [leaf for binding in main_bindings(function) for leaf in leaves(binding.value)]
    arrays = [array_of(leaf) for leaf in found if isinstance(leaf, Constant)]
    for array in arrays:
        large = array[np.isfinite(array) & (np.abs(array) > LARGEST_BF16)]
        if array.dtype == np.float32 and large.size:
            return float(large[0])
    return 0.0


def _needs_speed(node: Primitive) -> bool:
    """Return whether a reference implementation of `node` is a reason to decline.

    Small primitives in float32 may use one. Reduced precision is only worth choosing for speed.
    """
    narrow = node.output.dtype != "float32"
    return node.op in _NEEDS_SPEED or (narrow and node.op not in _COPIES)


def _crawls(node: Primitive, name: str) -> bool:
    """Return whether `node` is a bfloat16 convolution via a matrix product, followed by Swish.

    oneDNN 3.2 takes ten times as long for it as with other implementations. With an additional sum
    it takes a second instead of 0.1 ms.
    """
    narrow = any(tensor.dtype == "bfloat16" for tensor in node.reads())
    swish = any(post_op.algorithm == "swish" for post_op in node.post_ops)
    return node.op == "convolution" and narrow and swish and ":gemm:" in name


def hints(function: relax.Function, decision: Decision) -> Mapping[str, float]:
    """Count the primitives of a supported sub-graph by kind and implementation, and their traffic.

    The name of an implementation omits its instruction set: ``convolution_brgconv``,
    ``reorder_jit_blk``. Traffic is ``read_bytes``, ``written_bytes`` and ``repacked_bytes`` per
    run.
    """
    graph = subgraph_graph(function, decision)
    names = implementations(graph.to_json()) if graph.nodes else ()
    counts = Counter(
        f"{node.op}_{_implementation(name)}" for node, name in zip(graph.nodes, names, strict=True)
    )
    repacked = sum(tensor.bytes for node in graph.nodes for tensor in node.repacks())
    read = sum(tensor.bytes for node in graph.nodes for tensor in node.reads())
    return {
        **{name: float(count) for name, count in counts.items()},
        "primitives": float(len(names)),
        "read_bytes": float(read + repacked),
        "written_bytes": float(sum(node.output.bytes for node in graph.nodes) + repacked),
        **({"repacked_bytes": float(repacked)} if repacked else {}),
    }


def _implementation(name: str) -> str:
    """Return the name of an implementation without its instruction set."""
    parts = [part for part in name.split(":") if not part.startswith(("avx", "sse", "any", "uni"))]
    return "_".join(parts)


def subgraph_graph(function: relax.Function, decision: Decision) -> PrimitiveGraph:
    """Build the primitive graph of one stage-1 sub-graph function under `decision`.

    Raises
    ------
    Unsupported
        If an operator has no primitive, or none with these attributes.
    """
    for binding in main_bindings(function):
        if is_tensor(binding.var) and not static_shape(binding.var.ty):
            raise Unsupported(
                op_name(binding.value), "a scalar", "a tensor of one dimension or more"
            )
    graph = PrimitiveGraph("p0", num_params=len(function.params))
    scope = make_scope(
        graph,
        function,
        {
            "subgraph": str(function.attrs["layoutsel.subgraph"]),
            "layout": decision.layout,
            "precision": decision.precision,
            "algorithm": decision.algorithm,
        },
    )
    count = int(function.attrs["layoutsel.num_activations"])
    allowed = {"float32", *(INTEGERS if scope.quantizes else ())}
    inputs, _ = port_layouts(function, decision)
    params = []
    for index, param in enumerate(function.params):
        if not isinstance(param.ty, relax.TensorType) or str(param.ty.dtype) not in allowed:
            raise Unsupported("parameter", f"a parameter of type {param.ty}", "a float32 tensor")
        shape = static_shape(param.ty)
        if not shape:
            raise Unsupported("parameter", "a scalar", "a tensor of one dimension or more")
        scope.element = str(param.ty.dtype)
        if index < count:
            tensor = _port(scope, shape, order_of(inputs[index]))
        else:
            tensor = graph.temp(shape, dtype=scope.element)
        tensor.storage = Storage("input" if index < count else "weight", tensor.bytes, index)
        params.append(tensor)
    graph.set_outputs(emit(scope, params, str(function.attrs["layoutsel.anchor"])))
    return graph


def _port(scope: Scope, shape: Sequence[int], order: str) -> StoredTensor:
    """Create the tensor of an activation parameter."""
    if scope.splits:
        return doubled(scope, shape, order)
    return scope.graph.temp(shape, order, scope.stored(scope.element))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
