"""Evaluate ONNX nodes of constants, with the size of every result known before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from tvm_passes.limits import ConstantBudget
from tvm_passes.normalize.fold_constants import GROWTH_BYTES

SMALL = 4096
"""Elements of a constant that is worth evaluating while importing; weights are folded later."""

BOUNDED = frozenset({"Compress", "NonZero", "Unique"})
"""Operators whose result's size depends on data, and is about that of their input at most."""

_IMPURE = frozenset(["Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"])
_IMPURE_LIKE = frozenset(["RandomNormalLike", "RandomUniformLike"])


def evaluate(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int
) -> list[np.ndarray] | None:
    """Value of a node of ONNX's own domain; None where ONNX's reference has none.

    Parameters
    ----------
    arrays
        One for each input of `node`, None where it is left out. Their results must be known to be small.
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
        # ONNX's reference raises whatever its numpy code does; the node then stays as it is.
        return None
    return values if all(isinstance(value, np.ndarray) for value in values) else None


def evaluate_within(
    node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int, budget: ConstantBudget
) -> list[np.ndarray] | None:
    """Value of a node, like :func:`evaluate`, if its size can be told before and is little more than its arguments'.

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
    """Elements of data of `shape` with `pads` around its last dimensions: ONNX's reference pads before it computes."""
    rank = len(pads) // 2
    around = [before + after for before, after in zip(pads[:rank], pads[rank:], strict=False)]
    inner = [size + more for size, more in zip(shape[len(shape) - rank :], around, strict=False)]
    return math.prod([*shape[: len(shape) - rank], *inner])


def _padded_bytes(node: NodeProto, arrays: Sequence[np.ndarray | None]) -> int:
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [])
    data = arrays[0] if arrays else None
    return 0 if data is None else padded_elements(pads, data.shape) * data.itemsize


def _result_bytes(node: NodeProto, arrays: Sequence[np.ndarray | None], opset: int) -> int | None:
    """Bytes of all results of a node of constants; None where ONNX cannot tell."""
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
    """Bytes of a tensor of a static shape."""
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
