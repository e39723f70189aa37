"""Evaluation of ONNX nodes with constant inputs, after a check of the size of their results."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from tvm_passes.limits import ImportBudget
from tvm_passes.normalize.fold_constants import GROWTH_BYTES

SMALL = 4096
"""Maximum number of elements of constants evaluated during the import; weights are folded later."""

BOUNDED = frozenset({"Compress", "NonZero", "Unique"})
"""Operators whose result size depends on data, and is at most about that of their input."""

_IMPURE = frozenset(["Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"])
_IMPURE_LIKE = frozenset(["RandomNormalLike", "RandomUniformLike"])


def evaluate(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int
) -> list[np.ndarray] | None:
    """Evaluate a node of ONNX's own domain; None if ONNX's reference evaluator cannot.

    Parameters
    ----------
    node
        Node to evaluate; its results must be known to be small.
    arrays
        Value of each input of `node`; None for an omitted one.
    opset
        Version of the operator set.

    Returns
    -------
    list of numpy.ndarray or None
        Value of each result.
    """
    given = {name: array for name, array in zip(node.input, arrays, strict=True) if name}
    graph = helper.make_graph([node], "constant", _untyped(given), _untyped(node.output))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(model).run(None, given)
    except (MemoryError, OSError):
        raise
    except Exception:
        # ONNX's reference raises any exception of its numpy code; the node then stays unchanged.
        return None
    return values if all(isinstance(value, np.ndarray) for value in values) else None


def evaluate_within(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int, budget: ImportBudget
) -> list[np.ndarray] | None:
    """Evaluate a node like :func:`evaluate`, unless its result is much larger than its inputs.

    Nodes with a result of unknown size are not evaluated either.

    Raises
    ------
    ModelTooLarge
        If `budget` is exceeded.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in _IMPURE | _IMPURE_LIKE:
        return None
    given = sum(array.nbytes for array in arrays if array is not None)
    nbytes = given if node.op_type in BOUNDED else _result_bytes(node, arrays, opset)
    if nbytes is None or max(nbytes, _padded_bytes(node, arrays)) > given + GROWTH_BYTES:
        return None
    budget.take(nbytes - given, f"node {node.name!r} ({node.op_type})")
    return evaluate(node, arrays, opset)


def padded_elements(pads: Sequence[int], shape: Sequence[int]) -> int:
    """Count the elements after padding; ONNX's reference evaluator pads before it computes.

    Parameters
    ----------
    pads
        Padding before, then after, each of the last dimensions.
    shape
        Shape of the data.
    """
    rank = len(pads) // 2
    around = [before + after for before, after in zip(pads[:rank], pads[rank:], strict=False)]
    inner = [size + more for size, more in zip(shape[len(shape) - rank :], around, strict=False)]
    return math.prod([*shape[: len(shape) - rank], *inner])


def _padded_bytes(node: NodeProto, arrays: Sequence[np.ndarray | None]) -> int:
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [])
    data = arrays[0] if arrays else None
    return 0 if data is None else padded_elements(pads, data.shape) * data.itemsize


def _result_bytes(node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int) -> int | None:
    """Compute the size of all results of a node, bytes; None if ONNX cannot infer it."""
    if not onnx.defs.has(node.op_type, opset, ""):
        return None
    data = {
        name: numpy_helper.from_array(array, name)
        for name, array in zip(node.input, arrays, strict=True)
        if array is not None
    }
    types = {
        name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        for name, tensor in data.items()
    }
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    opsets = [helper.make_opsetid("", opset)]
    try:
        results = shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=opsets
        )
    except (onnx.checker.ValidationError, shape_inference.InferenceError):
        return None
    sizes = [tensor_bytes(results[name]) for name in node.output if name and name in results]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == sum(map(bool, node.output)) else None


def tensor_bytes(proto: onnx.TypeProto) -> int | None:
    """Compute the size of a tensor, bytes; None for strings and shapes that are not static."""
    tensor = proto.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
        return None
    if tensor.elem_type in (0, int(ir.DataType.STRING)):
        return None
    elements = math.prod(dim.dim_value for dim in dims)
    return -(-elements * ir.DataType(tensor.elem_type).bitwidth // 8)


def _untyped(names: Collection[str]) -> list[ValueInfoProto]:
    values = [ValueInfoProto() for _ in names]
    for value, name in zip(values, names, strict=True):
        value.name = name
    return values
