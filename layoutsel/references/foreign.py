"""Operators that ONNX Runtime lacks: their entries' references stand in for it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto

from layoutsel.device.checks import VerificationError
from tvm_passes.operators import find_onnx
from tvm_passes.operators.onnx_operator import MICROSOFT

_KNOWN = frozenset({"", "ai.onnx", MICROSOFT})
"""Domains of the operators that ONNX Runtime has."""


def has_foreign_operators(model: onnx.ModelProto) -> bool:
    """True if some operators of the model are in the table of operators but not in ONNX Runtime.

    Raises
    ------
    VerificationError
        If the entry of such an operator states no reference.
    """
    nodes = list(_foreign_nodes(model))
    for node in nodes:
        entry = find_onnx(node.op_type, node.domain)
        if entry is not None and entry.reference is None:
            raise VerificationError(
                f"the model cannot be verified: node {node.name or node.output[0]!r} has operator "
                f"{node.op_type} of domain {node.domain!r}, which ONNX Runtime lacks; expected a "
                "reference in its entry. Add `reference` to its OnnxOperator, or leave "
                "verification out (verify=False, --no-verify)"
            )
    return bool(nodes)


def _foreign_nodes(model: onnx.ModelProto) -> Iterator[NodeProto]:
    defined = {(function.domain, function.name) for function in model.functions}
    bodies = (model.graph.node, *(function.node for function in model.functions))
    for node in (node for body in bodies for node in body):
        is_known = node.domain in _KNOWN or (node.domain, node.op_type) in defined
        if not is_known and find_onnx(node.op_type, node.domain) is not None:
            yield node
