"""Names in a source model that identify a layer, in contrast to an exporter's numbers."""

from __future__ import annotations

import re

GENERIC = frozenset({"node", "val", "value", "out", "output", "onnx", "op", "tensor", "token"})
"""Words that do not identify a layer."""

EXPORTED = "node_"
"""Prefix of names that PyTorch's exporter builds from operators and numbers."""


def identifies(name: str, operator: str) -> bool:
    """Tell whether a node's name identifies a layer.

    ``Conv_12`` does not: it is the operator and a position, which changes when a layer is inserted
    before it and the model is exported again. ``/head/Conv`` does: it has a scope.

    Parameters
    ----------
    name
        Name of the node.
    operator
        ONNX operator of the node.
    """
    scope = name.strip("/").rpartition("/")[0]
    if scope or name.startswith(EXPORTED):
        return bool(scope)
    words = {word for word in re.findall("[a-z]+", name.lower()) if len(word) > 1}
    parts = {part.lower() for part in re.findall("[A-Z][a-z]*", operator)}
    return bool(words - {operator.lower()} - parts - GENERIC)
