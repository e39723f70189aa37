"""Converters of TVM for the attributes that they get right."""

from __future__ import annotations

from typing import Any

from tvm.relax import Expr

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.support import Converter, stock


def _only(name: str, attribute: str, allowed: tuple[Any, ...], otherwise: Any) -> Converter:
    """Stock converter, for the values of an attribute that it gets right."""

    def convert(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
        value = attributes.get(attribute, otherwise)
        if value not in allowed:
            raise UnsupportedModel(f"attribute {attribute} is {value!r}; expected {allowed[0]!r}")
        return stock(name)(builder, inputs, attributes, state, opset)

    return convert


def top_k(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """TVM's converter, sorted: any order is right where the model leaves it open."""
    attributes["sorted"] = 1
    return stock("TopK")(builder, inputs, attributes, state, opset)


roi_align = _only("RoiAlign", "mode", (b"avg",), b"avg")
space_to_depth = _only("SpaceToDepth", "mode", (b"DCR",), b"DCR")
