"""Helpers of the converters of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

Converter = Callable[[relax.BlockBuilder, Sequence[Any], dict[str, Any], Any, int], Expr]
"""Converts a node: (builder, inputs, attributes, importer's state, operator set) → expression."""


def stock(name: str) -> Converter:
    """Return TVM's own converter of an ONNX operator."""

    def convert(builder: relax.BlockBuilder, *arguments: Any) -> Expr:
        *others, opset = arguments
        return onnx_frontend._get_convert_map()[name].get_converter(opset)(builder, *others)

    return convert


def array_of(expr: Expr | None) -> np.ndarray | None:
    """Return the value of a constant; None for any other expression."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def constant(value: Any, dtype: Any) -> Expr:
    """Make a constant of exactly `dtype`; ``relax.const`` narrows 64-bit arrays to 32 bits."""
    return relax.const(tvm.runtime.tensor(np.asarray(value, str(dtype))))
