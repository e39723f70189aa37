"""Rules of ONNX operators that ONNX's own checks lack; nodes that break one are rejected."""

from __future__ import annotations

from tvm_passes.onnx.facts import NodeFacts
from tvm_passes.operators import find_onnx


def broken_rule(node: NodeFacts) -> str | None:
    """Describe the problem of a node as "got ...; expected ..."; None if no rule is broken."""
    entry = find_onnx(node.op, node.domain)
    for rule in () if entry is None else entry.rules:
        problem = rule(node)
        if problem is not None:
            return problem
    for index, result in enumerate(node.outputs):
        if result is not None and result.shape and any((size or 0) < 0 for size in result.shape):
            return f"got a result {index} of {list(result.shape)}; expected no negative size"
    return None
