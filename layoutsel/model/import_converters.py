"""Conversion of ONNX operators to Relax, by their entries in the table of operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax
from tvm.relax import Expr

from tvm_passes.onnx.support import stock
from tvm_passes.operators import find_onnx


def has_converter(op_type: str, domain: str = "") -> bool:
    """True if an operator of a domain can be imported."""
    entry = find_onnx(op_type, domain)
    return entry is not None and entry.is_imported


def convert(
    op_type: str,
    domain: str,
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Convert one operator, by its entry's converter or else by TVM's.

    Parameters
    ----------
    op_type, domain
        Name and domain of the operator.
    builder
        Builder of the function.
    inputs
        Converted inputs; None for an omitted one.
    attributes
        Attributes of the node, with the importer's own under ``tvm_custom``.
    state
        Named values and parameters of the importer.
    opset
        Version of the operator set.
    """
    entry = find_onnx(op_type, domain)
    own = None if entry is None else entry.convert
    return (own or stock(op_type))(builder, inputs, attributes, state, opset)
