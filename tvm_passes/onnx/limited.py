"""Converters of TVM, restricted to the attribute values that they convert correctly."""

from __future__ import annotations

from typing import Any

from tvm.relax import Expr

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.support import Converter, stock


def _only(name: str, attribute: str, allowed: tuple[Any, ...], otherwise: Any) -> Converter:
    """Make TVM's converter reject other values of an attribute than `allowed`."""

    def convert(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
        value = attributes.get(attribute, otherwise)
        if value not in allowed:
            raise UnsupportedModel(f"attribute {attribute} is {value!r}; expected {allowed[0]!r}")
        return stock(name)(builder, inputs, attributes, state, opset)

    return convert


def top_k(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert TopK by TVM's converter, with sorted results: a model may leave the order open."""
    attributes["sorted"] = 1
    return stock("TopK")(builder, inputs, attributes, state, opset)


roi_align = _only("RoiAlign", "mode", (b"avg",), b"avg")
space_to_depth = _only("SpaceToDepth", "mode", (b"DCR",), b"DCR")
